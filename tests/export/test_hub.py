"""A folder that was handed on, uploaded by the library of the Hugging Face Hub to a server on this machine."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from adcdnet.export import write
from adcdnet.export.write import export_model
from conftest import serving

hub = pytest.importorskip("huggingface_hub")
REPO = "someone/land-cover"


class Hub(ThreadingHTTPServer):
    """Takes what is uploaded. files: content by path; asked: what came, as "POST /api/..."."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.card: dict = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            text = json.loads(content)["content"]
            self.server.card = yaml.safe_load(text.split("---\n")[1])
            self.answer({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self.answer({"url": f"{self.server.url}/{REPO}", "name": REPO, "id": "1"})
        elif self.path == f"/api/models/{REPO}/preupload/main":
            files = json.loads(content)["files"]
            kinds = {True: "lfs", False: "regular"}  # the Hub keeps binary files apart
            modes = [(f["path"], kinds[f["path"].endswith((".onnx", ".pt2", ".safetensors"))]) for f in files]
            self.answer({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]})
        elif self.path == f"/{REPO}.git/info/lfs/objects/batch":
            objects = json.loads(content)["objects"]
            actions = [{"upload": {"href": f"{self.server.url}/store/{o['oid']}"}} for o in objects]
            made = [{**o, "actions": a} for o, a in zip(objects, actions, strict=True)]
            self.answer({"transfer": "basic", "objects": made})
        else:
            assert self.path == f"/api/models/{REPO}/commit/main", self.path
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.stored[value["oid"]]
            self.answer({"commitUrl": f"{self.server.url}/{REPO}/commit/1", "commitOid": "1", "success": True})

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.stored[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_GET(self):
        self.answer({"id": REPO, "sha": "0", "siblings": [], "private": False})

    def answer(self, said):
        content = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def handed(quick_run, tmp_path, monkeypatch):
    """A folder with all but a true graph, which other tests are about."""
    monkeypatch.setattr(write, "program_of", lambda *_: None)
    monkeypatch.setattr(write, "_write_graph", lambda program, path, *_: path.write_bytes(b"a graph"))
    export_model(quick_run.model, tmp_path / "on", licence="cc-by-4.0")
    return tmp_path / "on"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's library
def test_the_folder_is_uploaded_as_it_is_and_its_card_is_read(handed, monkeypatch, quick_run):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    server = Hub()
    with serving(server):
        api = hub.HfApi(endpoint=server.url, token="hf_any")
        api.create_repo(REPO)
        api.upload_folder(repo_id=REPO, folder_path=handed)
    assert server.files == {path.name: path.read_bytes() for path in handed.iterdir()}
    assert (server.card["license"], server.card["library_name"]) == ("cc-by-4.0", "adcdnet")
    seen = quick_run.model.record.validation
    assert server.card["model-index"][0]["results"][0]["metrics"][0]["value"] == round(seen["oa"], 4)


def test_the_front_matter_is_what_the_hub_writes_again(handed):
    """Read by its library and written again it is the same: no field is misnamed or lost."""
    text = (handed / "README.md").read_text(encoding="utf-8")
    data = hub.ModelCard(text).data
    assert yaml.safe_load(data.to_yaml()) == yaml.safe_load(text.split("---\n")[1])
    assert len(data.eval_results) == 4

"""The class table: what it reads, and what it refuses."""

import numpy as np
import pytest

from adcdnet.errors import InputError
from adcdnet.geo.classes import PALETTE, ClassTable, _lab, read_prior


def read(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "classes.csv"
    path.write_bytes(text.encode(encoding))
    return ClassTable.read(path)


def test_rows_are_sorted_by_value_and_missing_colors_are_filled(tmp_path):
    table = read(tmp_path, "name,value,color,remark\n Wald ,20,#00ff00,x\nGewässer,3,,\n")
    assert table == ClassTable((3, 20), ("Gewässer", "Wald"), (PALETTE[0], "#00ff00"))


def test_the_color_column_and_a_byte_order_mark_are_optional(tmp_path):
    assert read(tmp_path, "\ufeffvalue,name\n1,a\n2,b\n") == ClassTable.numbered(["a", "b"])


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("value;name;color\n1;Wälder;#00ff00\n2;Seen;\n", "cp1252"),  # Excel in German
        ("Value,NAME,Color\n1,Wälder,#00ff00\n2,Seen,\n", "utf-8"),
        ("value, name, color\n1, Wälder, #00ff00\n2, Seen,\n\n", "utf-8-sig"),
        ("value\tname\tcolor\r\n1\tWälder\t#00ff00\r\n2\tSeen\t\r\n", "utf-16"),  # Excel's Unicode text
        ("value,name,color\n1,Wa\u0308l\u200bder,#00ff00\n2,Se\x07en\n", "utf-8"),  # parts of letters, and unseen ones
    ],
)
def test_tables_of_spreadsheets_are_read(tmp_path, text, encoding):
    table = read(tmp_path, text.replace("Se\x07en", "\x07Seen"), encoding)
    assert table == ClassTable((1, 2), ("Wälder", "Seen"), ("#00ff00", PALETTE[1]))


def test_a_workbook_is_to_be_saved_as_text(tmp_path):
    (tmp_path / "classes.xlsx").write_bytes(b"PK\x03\x04" + bytes(9))
    with pytest.raises(InputError, match=r"classes\.xlsx cannot be read: it is a workbook, not text; save it as CSV$"):
        ClassTable.read(tmp_path / "classes.xlsx")


@pytest.mark.parametrize("codes", [(112, 231, 312), (0, 1, 2), (-1, 4, 5)])
def test_values_that_no_map_can_hold_are_codes_of_classes_from_one_on(tmp_path, codes):
    table = read(tmp_path, "value,name\n" + "".join(f"{code},class {code}\n" for code in reversed(codes)))
    assert table == ClassTable.numbered([f"class {code}" for code in codes])
    assert table.codes == codes


def test_numbered_classes_begin_at_one_and_colors_repeat_after_the_palette():
    count = len(PALETTE) + 1
    table = ClassTable.numbered([f"class {k}" for k in range(count)])
    assert table.values == tuple(range(1, count + 1))
    assert table.colors == (*PALETTE, PALETTE[0])
    assert len(table) == count


def test_the_colors_of_the_palette_differ():
    assert len(set(PALETTE)) == len(PALETTE) >= 32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs a header"),
        ("value,name\n", "needs a header"),
        ("value,name\none,a\n", "whole numbers"),
        ("value,name\n1.5,a\n", "whole numbers"),
        ("value,name\n1,a\n1,b\n", "different and rising"),
        ("value,name\n1,a\n2,a\n", "names must differ"),
        ("value,name\n1,a\n2,\n", "not be empty"),
        ("value,name\n1,a\n2\n", "not be empty"),
        ("value,name,color\n1,a,red\n", "#rrggbb"),
    ],
)
def test_unusable_tables_are_refused_in_one_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_not_text_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv cannot be read"):
        ClassTable.read(tmp_path / "none.csv")
    (tmp_path / "classes.csv").write_bytes(b"value,name\n1,\x81\n")  # neither UTF-8 nor Windows' Latin letters
    with pytest.raises(InputError, match=r"classes\.csv cannot be read"):
        ClassTable.read(tmp_path / "classes.csv")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("value,name\n1,a\n", "need the columns value,share"),
        ("value,share\n1,many\n2,1\n", "need the columns value,share"),
        ("value,share\n1,1e308\n2,1e308\n", r"name \[1, 2\], needed is one share above 0"),
        ("value,share\n1,0\n2,1\n", r"name \[1, 2\], needed is one share above 0"),
        ("value,share\n1,nan\n2,1\n", "one share above 0"),
        ("value,share\n1,1\n3,1\n", r"name \[1, 3\], needed is one share above 0 for each of \[1, 2\]"),
    ],
)
def test_shares_that_cannot_be_used(tmp_path, text, complaint):
    (tmp_path / "shares.csv").write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_prior(tmp_path / "shares.csv", ClassTable.numbered(["a", "b"]))


def test_shares_are_read_in_any_unit_and_order(tmp_path):
    (tmp_path / "shares.csv").write_text("value,share\n2,30\n1,10\n")
    assert read_prior(tmp_path / "shares.csv", ClassTable.numbered(["a", "b"])) == (0.25, 0.75)


def test_colours_that_a_reader_cannot_tell_apart_are_named():
    table = ClassTable((1, 2, 3), ("town", "wood", "lake"), ("#d62828", "#1b5e20", "#2166ac"))
    (said,) = table.alike()
    assert "town (#d62828) and wood (#1b5e20)" in said  # red and green of one lightness
    assert "without red cones" in said
    twins = ClassTable((1, 2), ("a", "b"), ("#777777", "#7b7b7b")).alike()
    assert twins == ["the colours of a (#777777) and b (#7b7b7b) are hard to tell apart; change one in the class table"]


def test_the_default_colours_keep_apart_for_every_reader():
    assert ClassTable.numbered([f"c{k}" for k in range(len(PALETTE))]).alike() == []


def test_colour_differences_are_those_of_cielab():  # known values of pure sRGB red, and of the two ends of grey
    lab = _lab(["#ff0000", "#ffffff", "#000000"], np.eye(3))
    assert lab == pytest.approx(np.array([[53.24, 80.09, 67.20], [100, 0, 0], [0, 0, 0]]), abs=0.05)

from adcdnet.cli import main

main()

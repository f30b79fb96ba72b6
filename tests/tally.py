"""Counts the cases of a JUnit file: prints "passed failed skipped". No cases is no answer: exit 1."""
import sys
import xml.etree.ElementTree as tree


def main(path):
    try:
        root = tree.parse(path).getroot()
    except (OSError, tree.ParseError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    failed = skipped = total = 0
    for case in root.iter("testcase"):
        total += 1
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
    if total == 0:
        print(f"{path}: no test ran", file=sys.stderr)
        return 1
    print(total - failed - skipped, failed, skipped)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

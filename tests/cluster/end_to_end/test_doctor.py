"""Is the installation ready for what follows?"""

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.doctor import CheckWarning


def test_doctor_finds_nothing_wrong(target):
    wrong = []
    for check in target.checks():
        try:
            print(f"{check.title}: {check.run()}")
        except CheckWarning as warning:
            print(f"{check.title}: to look at: {warning}")
        except UserError as error:
            wrong.append(f"{check.title}: {error}")
    assert not wrong

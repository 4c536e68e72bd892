import pytest

from utils.errors import UserError, run_command


def test_a_user_error_is_one_line_and_status_2(capsys):
    def fail():
        raise UserError("a file\nis missing")

    assert run_command(fail) == 2
    assert capsys.readouterr() == ("", "error: a file is missing\n")


def test_success_is_0_and_an_interruption_130(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert run_command(lambda: print("done")) == 0
    assert capsys.readouterr().out == "done\n"
    assert run_command(interrupt) == 130


def test_a_mistake_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)

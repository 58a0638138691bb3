from ctuq.text import listed, shortened, visible


def test_nothing_that_a_screen_obeys_is_left():
    hostile = "a\x1b[31mred\x07\r\n\u202egpj.exe\u2028\ud800\x9b2J"
    shown = visible(hostile)
    assert shown.isprintable() and shown.startswith("a\\x1b[31mred\\x07  \\u202egpj.exe")
    assert shown.encode("utf-8")


def test_letters_of_all_languages_stay():
    assert visible("Nüsse, 胡桃, جوز µm °") == "Nüsse, 胡桃, جوز µm °"


def test_a_megabyte_of_text_is_cut_and_says_so():
    assert visible("x" * 10**6) == "x" * 2000 + "… (998000 characters more)"
    assert len(shortened("y " * 10**6)) < 2100


def test_of_many_names_the_first_are_listed():
    assert listed([]) == "" and listed("ab") == "a, b"
    assert listed(map(str, range(10**4))).endswith("11 and 9988 more")

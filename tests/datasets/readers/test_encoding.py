from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay.datasets.readers.encoding import find_mixed, find_mojibake, guess_encoding
from torchrelay.datasets.table import open_table, read_table
from torchrelay.drafting import draft_recipe, write_draft
from torchrelay.drafting.survey import survey_table
from torchrelay.errors import DataError
from torchrelay.recipe import Data

WriteTable = Callable[..., str]

RUSSIAN = ["Москва", "Санкт-Петербург", "Казань", "кошка", "собака", "красный"]
CHINESE = ["北京", "上海", "广州", "猫", "狗", "很好的电影", "不好看"]
JAPANESE = ["東京", "大阪", "ねこ", "いぬ", "カメラ", "とても良い映画"]
TRADITIONAL = ["臺北", "高雄", "貓", "狗", "紅色", "很好的電影"]
KOREAN = ["서울", "부산", "고양이", "개", "빨강", "좋은 영화"]
POLISH = ["żółty", "czerwony", "łódź", "gęś", "święto", "źrebię", "ćma"]
GREEK = ["Αθήνα", "γάτα", "σκύλος", "κόκκινο", "μπλε"]


def table_of(words: list[str], encoding: str) -> bytes:
    return ("x,name\n" + "".join(f"{row},{words[row % len(words)]}\n" for row in range(40))).encode(
        encoding
    )


@pytest.mark.parametrize(
    ("words", "encoding", "written"),
    [
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (CHINESE, "gb18030", "gb18030"),
        (JAPANESE, "shift-jis", "shift-jis"),
        (["ポスト", "ポット", "スポーツ", "東京ポ"], "shift-jis", "shift-jis"),
        (JAPANESE, "euc-jp", "euc-jp"),
        (TRADITIONAL, "big5", "big5"),
        (KOREAN, "euc-kr", "euc-kr"),
        (POLISH, "iso8859-2", "iso8859-2"),
        (POLISH, "cp1250", "cp1250"),
        (GREEK, "cp1253", "cp1253"),
        (["grün", "weiß", "Tür", "größer"], "latin-1", "latin-1"),
        (["café", "5 €", "“quoted”", "forêt"], "cp1252", "cp1252"),
    ],
)
def test_the_encoding_of_a_file_is_found_and_shown_by_examples(
    write_table: WriteTable, words: list[str], encoding: str, written: str
) -> None:
    table = write_table(table_of(words, encoding))
    guess = guess_encoding(Path(table))
    assert guess.encoding == written
    first = next(word for word in words if not word.isascii())
    assert repr(first) in guess.describe()
    with pytest.raises(
        DataError,
        match=rf"is not utf-8: byte 0x.*, line \d.*set data.encoding: {written} .*{first}",
    ):
        read_table(Data(table=table))
    assert (
        read_table(Data(table=table, encoding=guess.encoding))["name"].tolist()[: len(words)]
        == words
    )


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        ([f"{row},54 €" for row in range(40)], "cp1252"),
        (["5 €", "7 €", "“x”", "it’s", "c–d"], "cp1252"),
        (["£5", "£7"], "latin-1"),
        (["¿qué?", "¡sí!"], "latin-1"),
        ([f"{row} °C" for row in range(40)], "latin-1"),
        ([f"{row} µm" for row in range(40)], "latin-1"),
        (["ÄÖ", "ÜÄ"], "latin-1"),
        (["biała", "mała", "cała", "stała"], "iso8859-2"),
        (["男", "女"], "gb18030"),
    ],
)
def test_signs_and_few_letters_are_read_by_the_common_encoding_and_words_by_theirs(
    tmp_path: Path, words: list[str], encoding: str
) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(table_of(words, encoding).replace(b",", b";"))
    assert guess_encoding(table).encoding == encoding


@pytest.mark.parametrize(
    ("words", "encoding", "written", "read"),
    [
        (["猫", "狗"], "gb18030", "gb18030", "猫"),
        (["да", "нет"], "koi8-r", "koi8-r", "да"),
        (["ｱｲｳ", "ｴｵｶ"], "shift-jis", "shift-jis", "ｱｲｳ"),
        (["да", "нет"], "cp1251", "latin-1", "äà"),
    ],
)
def test_of_few_signs_the_common_encodings_are_said_beside_what_is_taken(
    write_table: WriteTable, words: list[str], encoding: str, written: str, read: str
) -> None:
    guess = guess_encoding(Path(write_table(table_of(words, encoding))))
    assert guess.others[written] == read


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_found_with_and_without_a_mark(write_table: WriteTable, encoding: str) -> None:
    table = write_table("a,b\n1,Москва\n2,ü\n".encode(encoding))
    assert guess_encoding(Path(table)).encoding == encoding
    assert read_table(Data(table=table, encoding=encoding))["b"].tolist() == ["Москва", "ü"]
    with pytest.raises(DataError, match=r"is UTF-16, not utf-8|is not utf-8|NUL"):
        open_table(Data(table=table))


def test_an_encoding_that_is_not_sure_is_said_with_what_the_others_would_read(
    write_table: WriteTable,
) -> None:
    table = Path(write_table(table_of(["café", "été", "forêt", "hôtel"], "latin-1")))
    guess = guess_encoding(table)
    assert guess.encoding == "latin-1"
    assert guess.differs == "forêt"
    assert guess.others["iso8859-2"] == "foręt"
    table.write_bytes(
        b"x,name,y\n"
        + b"".join(
            f"{row},{'forêt,a' if row % 2 else 'café,b'}\n".encode("latin-1") for row in range(60)
        )
    )
    text = write_draft(draft_recipe(survey_table(table), "y"), table.with_suffix(".yaml"))
    assert "'forêt' would be 'foręt' by iso8859-2" in " ".join(text.replace("#", "").split())
    assert "  encoding: latin-1\n" in text


@pytest.mark.parametrize(("encoding", "line"), [("utf-16", 3), ("utf-16-le", 3), ("utf-32", 3)])
def test_a_file_that_is_cut_within_a_letter_is_told_its_line_and_one_remedy(
    write_table: WriteTable, encoding: str, line: int
) -> None:
    table = write_table("a,b\n1,x\n2,y\n".encode(encoding)[:-1])
    with pytest.raises(DataError) as caught:
        open_table(Data(table=table, encoding=encoding))
    assert str(caught.value).endswith(
        f", line {line}; it is cut short, or of another encoding: save it again, as UTF-8"
    )


def test_one_broken_byte_is_the_verdict_of_its_row_and_changes_no_other(
    write_table: WriteTable,
) -> None:
    table = write_table("a,b\n1,grün\n2,über\n3,".encode() + b"gr\xfcn\n" + "4,schön\n".encode())
    assert guess_encoding(Path(table)).encoding == "utf-8"
    found = open_table(Data(table=table))
    assert found.frame["b"].tolist() == ["grün", "über", "gr�n", "schön"]
    assert {row: str(reason) for row, reason in found.bad.items()} == {
        2: "byte that is not utf-8 in 'b': 'gr�n', 0xfc"
    }


def test_nul_bytes_are_the_verdict_of_their_row(write_table: WriteTable) -> None:
    found = open_table(Data(table=write_table(b"a,b\n1,x\n2,y\x00z\n3,w\n" + b"\0" * 300)))
    assert found.frame["b"].tolist()[:3] == ["x", "y�z", "w"]
    assert [str(found.bad[row]).split(":")[0] for row in (1, 3)] == [
        "NUL byte in 'b'",
        "NUL byte in 'a'",
    ]
    assert sorted(found.bad) == [1, 3]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_long_cells_beside_one_beyond_ascii_are_looked_through_once(
    tmp_path: Path, encoding: str
) -> None:
    table = tmp_path / "long.csv"
    table.write_bytes(f"a,b\n{'word ' * 20_000},grün\n".encode(encoding))
    began = time.process_time()
    assert find_mojibake(table) == find_mixed(table, "latin-1")[1:] == []
    assert time.process_time() - began < 2  # as a pattern that asks for both took half a minute


def test_text_that_was_decoded_wrongly_before_is_warned_of(write_table: WriteTable) -> None:
    table = write_table("a,b\n1,GrÃ¼n\n2,donâ€™t\n3,Größe\n")
    assert find_mojibake(Path(table)) == ["'GrÃ¼n' for 'Grün'", "'donâ€™t' for 'don’t'"]
    assert "'GrÃ¼n' for 'Grün'" in open_table(Data(table=table)).notes[0]
    assert open_table(Data(table=write_table("a,b\n1,Grün\n2,Ångström\n3,São\n"))).notes == []


GERMAN = ["Grün", "Weiß", "Blau", "Rötlich", "größer"]


@pytest.mark.parametrize(
    ("words", "encoding", "shown"),
    [
        (GERMAN, "latin-1", "'GrÃ¼n' for 'Grün', 'WeiÃ\\x9f' for 'Weiß'"),
        (GERMAN, "cp1252", "'GrÃ¼n' for 'Grün', 'WeiÃŸ' for 'Weiß'"),
        (POLISH, "cp1250", "'ĹĽĂłĹ‚ty' for 'żółty'"),
        (RUSSIAN, "cp1251", "'РњРѕСЃРєРІР°' for 'Москва'"),
    ],
)
def test_a_file_of_two_encodings_is_said_and_read_by_the_one_that_is_not_utf_8(
    write_table: WriteTable, words: list[str], encoding: str, shown: str
) -> None:
    table = write_table(table_of(words, encoding) + table_of(words, "utf-8").partition(b"\n")[2])
    assert guess_encoding(Path(table)).encoding in (encoding, "latin-1")
    [note] = open_table(Data(table=table, encoding=encoding)).notes
    assert f"has cells that are UTF-8, beside others in {encoding}: {shown}" in note


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        (RUSSIAN, "cp1251"),
        (POLISH, "iso8859-2"),
        (["PODRÓŻ", "ŁÓDŹ"], "iso8859-2"),
        ([*RUSSIAN, "шок", "шеи"], "cp866"),
        (JAPANESE, "shift-jis"),
        (["café", "été"], "latin-1"),
    ],
)
def test_a_file_of_one_encoding_is_not_taken_for_utf_8(
    write_table: WriteTable, words: list[str], encoding: str
) -> None:
    assert (
        open_table(Data(table=write_table(table_of(words, encoding)), encoding=encoding)).notes
        == []
    )


def test_utf_8_with_a_broken_byte_is_not_read_by_an_encoding_that_reads_anything(
    write_table: WriteTable,
) -> None:
    table = write_table(table_of(GERMAN, "utf-8") + b"41,gr\xfcn\n")
    with pytest.raises(DataError, match=r"is UTF-8, not latin-1: its cells such as 'Grün'"):
        open_table(Data(table=table, encoding="latin-1"))


def test_utf_8_is_not_read_by_an_encoding_that_reads_anything(write_table: WriteTable) -> None:
    table = write_table("a,b\n1,grün\n2,über\n3,schön\n4,Tür\n")
    with pytest.raises(
        DataError,
        match=r"is UTF-8, not cp1251: its cells such as 'grün'.*set data\.encoding: utf-8",
    ):
        open_table(Data(table=table, encoding="cp1251"))


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", r"is not utf-16: byte 0x61 at position 0, line 1; set data\.encoding: utf-8"),
        ("utf-32", r"is not utf-32: byte 0x61 at position 0, line 1; set data\.encoding: utf-8"),
        ("base64", r"'base64' is not a text encoding; legal are ascii, big5, "),
        ("mbcs", r"'mbcs' is not a text encoding; legal are ascii, big5, "),
    ],
)
def test_an_encoding_that_reads_no_such_table_is_refused_with_one_that_does(
    write_table: WriteTable, encoding: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        open_table(Data(table=write_table("a,b\n1,ü\n2,x\n"), encoding=encoding))

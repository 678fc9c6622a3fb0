from html.parser import HTMLParser

import pytest

from backbone.io.html import Picture, Table, render_page, write_page

LEAD = "Two & more <tables>."


def words(page):
    """Return the tags and texts of a page, in order."""
    seen = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append(f"<{tag}>")

        def handle_data(self, data):
            seen.extend(data.split())

    Parser().feed(page[page.index("<h1>") :])
    return seen


def test_a_page_has_its_tables_in_order():
    parts = [Table("First", ["a", "b"], [["1", "2"], ["3", "4"]], "A note."), Table("Next", [], [])]
    expected = (
        "<h1> Title <p> Two & more <tables>. <h2> First <div> <table> <tr> <th> a <th> b "
        "<tr> <td> 1 <td> 2 <tr> <td> 3 <td> 4 <p> A note. <h2> Next <div> <table> <tr> <p>"
    )
    assert words(render_page(title="Title", lead=LEAD, parts=parts)) == expected.split()


def test_text_from_data_cannot_become_markup():
    evil = "<script>alert('x')</script>\"&"
    page = render_page(title=evil, lead=evil, parts=[Table(evil, [evil], [[evil]], evil)])
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&amp;") == 7


def test_pictures_are_embedded_so_that_a_page_is_one_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    write_page(
        tmp_path / "page.html",
        title="T",
        lead="",
        parts=[Picture("Boxes", tmp_path / "a.png", "A caption")],
    )
    page = (tmp_path / "page.html").read_text()
    image = '<img alt="Boxes" src="data:image/png;base64,cGljdHVyZQ=="><figcaption>A caption</figc'
    assert image in page
    assert "http" not in page
    assert "<link" not in page


def test_a_missing_picture_leaves_no_page(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        write_page(
            tmp_path / "page.html", title="T", lead="", parts=[Picture("P", tmp_path / "none.png")]
        )
    assert not list(tmp_path.iterdir())

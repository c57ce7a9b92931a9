"""The report in a real browser, without a network: what it shows, what one can do with it, and that texts of a model stay texts."""

import os
import re
import socket
from pathlib import Path

import pytest
import synthetic
from opened import PATIENCE_MS, report_of
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

TASKS_S = 1.5  # of the processor, which 10,000 tasks may add to opening a page of three: most is plotly, and the machine's
FIRST_CELLS = "#tasks .list tbody td:first-child"
ATTACK = "</script><script>document.title='x'</script><img src=x onerror=\"document.title='y'\"><!--<script>"


@pytest.fixture
def small(small_run, tmp_path, open_page):
    return open_page(report_of(tmp_path / "report.html", small_run))


def rows(opened) -> list[str]:
    return opened.page.locator(FIRST_CELLS).all_text_contents()


def test_the_first_screen_answers_whether_it_learned(small):
    page = small.page
    first = page.locator("#learned figure h3").all_text_contents()
    assert first == ["Accuracy on its own tasks", "Novelty", "Program length"]
    page.wait_for_selector("#held-out .plot .xy .trace")
    assert page.locator("#held-out .plot .errorbar").count() > 0
    verdict = page.text_content("#verdicts")
    assert "20.0% [10.0%, 30.0%] at step 0 → 70.0% [60.0%, 80.0%] at step 10" in verdict
    assert "rose" in verdict
    box = page.locator("#held-out").bounding_box()
    assert box["y"] + box["height"] < 1000, "without scrolling"


@pytest.mark.parametrize("width", [1400, 700])
def test_held_out_accuracy_is_there_once_and_stays_in_sight_beside_every_section_of_curves(small, width):
    page = small.page
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_selector("#held-out .plot .xy .trace")
    assert page.locator("figure h3", has_text="Held-out accuracy").count() == 1
    for section in page.locator("#curves > section").all():
        section.locator("h2").scroll_into_view_if_needed()
        section.evaluate("section => scrollTo(0, section.offsetTop - 60)")
        box = page.locator("#held-out").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 900


def test_a_charts_buttons_show_only_under_the_pointer(small):
    page = small.page
    page.wait_for_selector("#held-out .plot .xy .trace")

    def shown() -> int:
        page.wait_for_timeout(600)  # plotly fades them
        return page.evaluate("[...document.querySelectorAll('.modebar')].filter(bar => getComputedStyle(bar).opacity > 0).length")

    page.mouse.move(5, 5)
    assert shown() == 0
    page.locator("#held-out .plot").hover()
    assert shown() == 1


def test_every_chart_draws_when_it_comes_into_view(small):
    page = small.page
    for figure in page.locator("figure").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".plot .main-svg").first.wait_for()
    assert page.locator("figure").count() >= 15


def test_a_click_opens_a_task_with_its_source_pairs_and_answers(small):
    small.page.click("text='#2'")
    task = small.page.locator("#task")
    task.locator("h3", has_text="#2 · deduction").wait_for()
    text = task.text_content()
    assert "def f(words):\n    return sorted(words)" in text
    assert "proposed at step 1" in text
    assert "3 of 4 answers right" in text
    assert "right 3, wrong value 1." in text
    assert task.locator("details.answer").count() == 4
    wrong = task.locator("details.answer", has_text="wrong value")
    wrong.locator("summary").click()
    assert wrong.locator("pre").text_content() == "['c']"
    assert wrong.locator("summary").text_content() == "estimate, step 1 · wrong value · reward -0.5 · advantage -1.25 · 4 tokens"


def test_lineage_leads_to_the_references_and_back(small):
    page = small.page
    page.click("text='#3'")
    page.click("#task a:has-text('#1')")
    page.locator("#task h3", has_text="#1 · deduction").wait_for()
    assert page.url.endswith("#task-0-1")
    assert "Shown to the proposer of #3." in page.text_content("#task")
    page.go_back()
    page.locator("#task h3", has_text="#3 · induction").wait_for()
    assert "Something with numbers." in page.text_content("#task")
    assert "squares" in page.text_content("#task")


def test_an_address_with_a_task_opens_it(small_run, tmp_path, open_page):
    opened = open_page(report_of(tmp_path / "report.html", small_run), "#task-0-2")
    opened.page.locator("#task h3", has_text="#2 · deduction").wait_for()


def test_a_reference_that_was_evicted_is_named_and_no_link(small_run, tmp_path, open_page):
    synthetic.tasks(small_run / "buffer.sqlite", [{"id": 9, "references": [2, 7]}])
    opened = open_page(report_of(tmp_path / "report.html", small_run), "#task-0-9")
    opened.page.locator("#task h3", has_text="#9").wait_for()
    assert "#7 (not in the buffer any more)" in opened.page.text_content("#task")
    assert opened.page.locator("#task a").all_text_contents() == ["#2"]


def test_filters_and_search_narrow_the_list(small):
    page = small.page
    assert rows(small) == ["#3", "#2", "#1"]
    page.select_option("#type", "induction")
    assert small.counts() == "1 of 3 tasks"
    page.select_option("#type", "")
    page.select_option("#state", "sometimes")
    assert rows(small) == ["#2"]
    page.select_option("#state", "untried")
    assert rows(small) == ["#1"]
    page.select_option("#state", "all")
    page.select_option("#origin", "seed")
    assert rows(small) == ["#1"]
    page.select_option("#origin", "")
    for words, found in (("sorted WORDS", ["#2"]), ("squares", ["#3"]), ("#1", ["#1"]), ("return", ["#3", "#2", "#1"]), ("nowhere", [])):
        page.fill("#search", words)
        expect(page.locator(FIRST_CELLS)).to_have_text(found)
        assert small.counts() == f"{len(found)} of 3 tasks"


def test_a_heading_sorts_the_list(small):
    page = small.page
    page.click("th button:has-text('right')")
    assert rows(small) == ["#1", "#3", "#2"]
    assert page.locator("#tasks th", has_text="right").get_attribute("aria-sort") == "ascending"
    page.click("th button:has-text('right')")
    assert rows(small) == ["#2", "#3", "#1"]


def test_the_keyboard_walks_the_list_and_opens_a_task(small):
    page = small.page
    page.locator("button.open").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#task h3", has_text="#2 · deduction").wait_for()
    assert page.evaluate("document.activeElement.id") == "task"


def test_unticking_a_type_takes_its_lines_away_in_every_chart(small):
    page = small.page
    page.wait_for_selector("#held-out .plot .xy .trace")
    assert page.locator("#held-out .trace.scatter").count() == 3
    page.uncheck("#shown label:has-text('abduction') input")
    expect(page.locator("#held-out .trace.scatter")).to_have_count(2)


def test_a_chart_can_be_read_as_numbers(small):
    page = small.page
    page.click("#held-out summary")
    numbers = page.locator("#held-out table").text_content()
    assert "deduction" in numbers
    assert "0.2 [0.1, 0.3]" in numbers


def test_any_metric_can_be_chosen_(small):
    page = small.page
    page.select_option("#metric", "train/loss")
    page.locator("#metrics figure h3", has_text="train/loss").wait_for()
    assert page.locator("#metrics figure h3").all_text_contents() == ["train/loss"]


def test_several_runs_lie_over_each_other_and_their_settings_are_compared(small_run, tmp_path, open_page):
    other = tmp_path / "other"
    synthetic.metrics(other, 20)
    synthetic.tasks(other / "buffer.sqlite", [{"id": 1}])
    for run, seed in ((small_run, 1), (other, 2)):
        folder = run / "checkpoints" / "step_000010"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"seed: {seed}\nselfplay:\n  steps: 20\n")
    opened = open_page(report_of(tmp_path / "report.html", small_run, other))
    page = opened.page
    page.wait_for_selector("#held-out .plot .xy .trace")
    assert page.locator("#held-out .trace.scatter").count() == 6
    page.uncheck("#shown label:has-text('other') input")
    expect(page.locator("#held-out .trace.scatter")).to_have_count(3)
    page.select_option("#run", "1")
    expect(page.locator("#count")).to_have_text("1 of 1 task")
    assert page.locator("#settings table").first.locator("tbody tr").all_text_contents() == ["seed12"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_readers_colours(small_run, tmp_path, open_page, scheme):
    opened = open_page(report_of(tmp_path / "report.html", small_run), color_scheme=scheme)
    text, back = opened.page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (text, back)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")


def test_what_a_model_wrote_is_shown_and_never_obeyed(tmp_path, open_page):
    run = tmp_path / "run"
    synthetic.metrics(run, 2)
    written = {"program": ATTACK, "message": ATTACK, "thought": ATTACK, "inputs": [ATTACK], "outputs": [ATTACK]}
    synthetic.tasks(run / "buffer.sqlite", [{"id": 1, "type": "induction"} | written])
    synthetic.rollouts(run, 1, [{"task": 1, "phase": phase, "completion": ATTACK, "outcome": ATTACK} for phase in ("propose", "solve")])
    opened = open_page(report_of(tmp_path / "report.html", run), "#task-0-1")
    task = opened.page.locator("#task")
    task.locator("h3", has_text="#1 · induction").wait_for()
    closed = task.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()
    assert task.locator("pre").all_text_contents() == [ATTACK] * 5  # program, message, thought, proposal, answer
    assert task.locator("td code").all_text_contents() == [ATTACK] * 2
    assert ATTACK in task.locator("details.answer summary").text_content()
    assert ATTACK in opened.page.locator("#tasks .list tbody").text_content()
    opened.page.wait_for_timeout(300)
    assert opened.page.title() == "run"
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("script").count() == opened.page.locator("body > script").count()


def test_a_run_whose_name_is_markup_is_still_a_name(tmp_path, open_page):
    run, other = tmp_path / "<b>bold<>&amp;", tmp_path / "other"
    synthetic.metrics(run, 50)
    synthetic.metrics(other, 5)
    opened = open_page(report_of(tmp_path / "report.html", run, other))
    assert opened.page.title() == "<b>bold<>&amp;, other"
    assert opened.page.locator("main b, h1 b").count() == 0


def test_the_policy_stops_scripts_and_requests_that_are_not_the_pages_own(small_run, tmp_path, chromium):
    path = report_of(tmp_path / "report.html", small_run)
    context = chromium.new_context()  # with a network: the policy alone must do
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready=yes]", timeout=PATIENCE_MS)
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.listen()
        elsewhere.setblocking(False)
        outcome = page.evaluate(
            """async (address) => {
              const script = document.createElement("script");
              script.textContent = "document.title = 'ran'";
              document.body.append(script);
              const image = new Image();
              image.src = address;
              const fetched = await fetch(address).then(() => "fetched", (error) => error.message);
              setTimeout("document.title = 'ran'", 0);
              await new Promise((done) => setTimeout(done, 300));
              return [document.title, fetched];
            }""",
            f"http://127.0.0.1:{elsewhere.getsockname()[1]}/",
        )
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    context.close()
    assert outcome == ["small", "Failed to fetch"]


def test_a_run_without_rollouts_says_so(tmp_path, open_page):
    synthetic.metrics(tmp_path / "run", 3)
    synthetic.tasks(tmp_path / "run" / "buffer.sqlite", [{"id": 1}])
    opened = open_page(report_of(tmp_path / "report.html", tmp_path / "run"), "#task-0-1")
    assert "There are no rollouts" in opened.page.text_content("#learned")
    opened.page.locator("#task", has_text="The rollouts hold no answer to this task.").wait_for()


@pytest.mark.slow
def test_a_real_run_is_shown_whole(real_run, tmp_path, open_page):
    opened = open_page(report_of(tmp_path / "report.html", real_run))
    page = opened.page
    assert re.match(r"[\d,]+ of [\d,]+ tasks", opened.counts())
    titles = page.locator("h2").all_text_contents()
    for title in (
        "Did it learn?",
        "Rewards",
        "Proposals",
        "Task buffer",
        "Optimizer steps",
        "Time and memory",
        "Tasks",
        "Configuration and versions",
    ):
        assert title in titles
    settings = page.text_content("#settings")
    assert "batch_size: 2" in settings
    assert "megatron-core" in settings
    page.locator("button.open").first.click()
    page.locator("#task pre.program", has_text="def f").wait_for()


@pytest.mark.slow
def test_ten_thousand_tasks_add_little_to_opening_a_page_and_can_be_searched(tmp_path, small_run, open_page):
    least = min(open_page(report_of(tmp_path / "small.html", small_run)).processor_seconds() for _ in range(2))
    synthetic.large(tmp_path / "large", 10_000, attempts=8)
    path = report_of(tmp_path / "report.html", tmp_path / "large")
    opened = open_page(path)
    seconds, wall = opened.processor_seconds(), opened.page.evaluate("performance.now()") / 1000
    size = path.stat().st_size / 1e6
    print(f"{size:.0f} MB: ready after {seconds:.2f} s of the processor, {least:.2f} of them for any page, {wall:.2f} s by the clock")
    assert opened.counts() == "10,000 of 10,000 tasks"
    assert 0.1 < least < seconds < least + TASKS_S
    assert size < 20  # answers are packed
    assert len(rows(opened)) == 50
    before = opened.processor_seconds()
    opened.page.fill("#search", "word42'")
    expect(opened.page.locator("#count")).not_to_have_text("10,000 of 10,000 tasks")
    assert opened.processor_seconds() - before < 1.0
    assert 0 < int(opened.counts().split()[0].replace(",", "")) < 1000
    opened.page.locator("button.open").first.click()
    opened.page.locator("#task details.answer").first.wait_for()


@pytest.mark.skipif(not os.environ.get("AZR_WRITE_SCREENSHOTS"), reason="writes docs/images/report.png when AZR_WRITE_SCREENSHOTS=1 is set")
def test_the_screenshot_of_the_docs(request, tmp_path, open_page):
    """Of the run that AZR_SCREENSHOT_RUN names, else of this test's small one."""
    run = Path(os.environ.get("AZR_SCREENSHOT_RUN") or request.getfixturevalue("real_run"))
    opened = open_page(report_of(tmp_path / "report.html", run))
    opened.page.wait_for_selector("#learned-lines .plot .xy .trace")
    opened.page.screenshot(path=Path(__file__).parents[2] / "docs" / "images" / "report.png")

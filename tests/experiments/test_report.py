"""The page that a report is, made by the scripts and opened in a browser."""

import base64
import contextlib
import html
import json
import re
import shutil
import subprocess
import urllib.request

import pytest

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")

# As a file or folder may be called.
HOSTILE = "<img src=x onerror=document.title=1> $x$ & 'a'"


@pytest.fixture(scope="module")
def train(call, make_npz, tmp_path_factory):
    """Returns workdir -> what a small run in it said, which makes a report."""
    data = shutil.copy(make_npz(), tmp_path_factory.mktemp("npz") / f"{HOSTILE}.npz")
    flags = (
        "--config=configs/base.py",
        "--config.model.width=0.1",
        "--config.train.steps=3",
        "--config.train.batch_size=16",
        "--config.train.log_every=1",
        "--config.train.report=True",
        "--config.data.source=npz",
        f"--config.data.file={data}",
    )

    def train(workdir):
        done = call("cifar10.py", *flags, f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
        return done

    return train


@pytest.fixture(scope="module")
def workdirs(train, tmp_path_factory):
    """A small run, and one that differs from it in its seed, so it says."""
    folder = tmp_path_factory.mktemp("runs")
    found = [folder / f"{HOSTILE} {seed}" for seed in (0, 1)]
    done = train(found[0])
    assert done.stderr == ""
    made = found[0] / "report"
    assert f"report: {made}/index.html\n" in done.stdout
    assert 'alt="confusion matrix' in (made / "index.html").read_text()
    shutil.rmtree(made)
    config = json.loads((found[0] / "config.json").read_text())
    shutil.copytree(*found)
    (found[1] / "config.json").write_text(json.dumps(config | {"seed": 1}))
    return found


def copied(workdir, tmp_path):
    nothing = shutil.ignore_patterns("report")
    return shutil.copytree(workdir, tmp_path / "run", ignore=nothing)


def test_a_report_that_fails_does_not_break_the_run(train, workdirs, tmp_path):
    workdir = copied(workdirs[0], tmp_path)
    (workdir / "final_metrics.json").unlink()
    (workdir / "report" / "index.html").mkdir(parents=True)
    done = train(workdir)
    assert re.fullmatch(r"warning: no report of .*need a folder.*\n", done.stderr)
    assert (workdir / "final_metrics.json").exists()


def report(call, folder):
    """Returns the page, and what was said on standard error."""
    done = call("report.py", f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    first, *said, last = done.stdout.splitlines()
    assert first == f"report: reading {folder}" and said
    assert last == f"report: {folder}/report/index.html"
    return (folder / "report" / "index.html").read_text(), done.stderr


@pytest.fixture(scope="module")
def comparison(call, snapshot, workdirs, tmp_path_factory):
    """The folder of the page about both runs, which leaves them as they were."""
    here = tmp_path_factory.mktemp("here")
    before = [snapshot(folder) for folder in workdirs]
    done = call("report.py", *(f"--workdir={folder}" for folder in workdirs), cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    assert [snapshot(folder) for folder in workdirs] == before
    (folder,) = (here / "runs").iterdir()
    assert re.fullmatch(r"comparison-\d{8}-\d{6}", folder.name)
    assert done.stdout.endswith(f"report: runs/{folder.name}/index.html\n")
    for words in ("predicting 30 test pictures", "drawing the curves"):
        assert f"report: {words}\n" in done.stdout
    return folder


@pytest.fixture(scope="module")
def compared(comparison):
    return (comparison / "index.html").read_text()


def test_a_report_holds_what_it_is_to(compared, comparison, workdirs):
    final = json.loads((workdirs[0] / "final_metrics.json").read_text())
    right, count = final["test/correct"], final["test/count"]
    assert f"{right} of {count} test pictures" in compared
    sources = re.findall(r'src="([^"]*)"', compared)
    inlined = {
        base64.b64decode(s.removeprefix("data:image/svg+xml;base64,")) for s in sources
    }
    files = {p.stem: p.read_bytes() for p in comparison.glob("*.svg")}
    assert inlined == set(files.values())
    curves = {"loss", "accuracy", "learning_rate", "throughput"}
    both = {"cross_entropy", "l2", "training_accuracy", "evaluation_accuracy"}
    both |= {"learning_rate", "throughput"}
    network = {"layers", "confusion", "per_class", "reliability", "mistakes"}
    network |= {"filters", "picture", "distortions"}
    maps = {f"maps_{name}" for name in ("conv1", "norm1", "conv2", "norm2")}
    both = {f"compared_{name}" for name in both}
    assert files.keys() == curves | both | network | maps
    # A command is typed as it stands there, and every argument has a line.
    assert re.search(r"cifar10\.py[^<]* \\\n  --config=configs/base\.py \\\n", compared)
    # Every name is escaped, and what differs is in the table.
    assert HOSTILE not in compared
    assert html.escape(HOSTILE) in compared
    assert "<td>config: seed</td><td>0</td><td>1</td>" in compared
    assert "config: train.steps<" not in compared


@pytest.fixture(scope="module")
def browse(environment):
    """Returns (page, width, dark) -> what a browser makes of it; speaks WebDriver."""
    if not (DRIVER and BROWSER):
        pytest.skip("needs chromium and chromedriver (Debian: chromium-driver)")
    driver = subprocess.Popen(
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True, env=environment
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with driver, contextlib.ExitStack() as ending:
        ending.callback(driver.kill)
        started = iter(driver.stdout.readline, "")
        ports = (re.search(r"started successfully on port (\d+)", s) for s in started)
        port = next(found[1] for found in ports if found)

        def send(method, path, body=None):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/session{path}",
                None if body is None else json.dumps(body).encode(),
                {"Content-Type": "application/json"},
                method=method,
            )
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]

        def browse(page, width, dark):
            scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
            options = {
                "binary": BROWSER,
                "args": ["--headless", "--no-sandbox", "--disable-gpu", scheme],
                "mobileEmulation": {
                    "deviceMetrics": {"width": width, "height": 800, "pixelRatio": 1}
                },
            }
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            made = send("POST", "", {"capabilities": {"alwaysMatch": wanted}})
            here = f"/{made['sessionId']}"
            try:
                send("POST", f"{here}/url", {"url": page.as_uri()})
                script = {
                    "script": """
                        for (const details of document.querySelectorAll('details'))
                            details.open = true;
                        const ground = getComputedStyle(document.body).backgroundColor;
                        const canvas = document.createElement('canvas');
                        canvas.width = canvas.height = 400;
                        const pen = canvas.getContext('2d');
                        pen.drawImage([...document.images].find(
                            i => i.alt.startsWith('loss over')), 0, 0, 400, 400);
                        const title = pen.getImageData(0, 0, 400, 24).data;
                        let alpha = 0, light = 0;
                        for (let i = 0; i < title.length; i += 4) {
                            alpha += title[i + 3];
                            light += title[i + 3] * title[i + 1];
                        }
                        return {
                            ground: ground.match(/\\d+/g).slice(0, 3).map(Number),
                            ink: light / alpha,
                            title: document.title,
                            scripts: document.scripts.length,
                            images: document.images.length,
                            loaded: [...document.images]
                                .filter(i => i.complete && i.naturalWidth > 0).length,
                            widest: Math.max(...[...document.images]
                                .map(i => i.getBoundingClientRect().right)),
                            seen: window.innerWidth,
                            needed: document.documentElement.scrollWidth,
                            requests: performance.getEntriesByType('resource')
                                .filter(e => !e.name.startsWith('data:')).length,
                        };""",
                    "args": [],
                }
                found = send("POST", f"{here}/execute/sync", script)
                log = send("POST", f"{here}/se/log", {"type": "browser"})
            finally:
                send("DELETE", here)
            return found, log

        yield browse


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_a_browser_shows_all_of_it(browse, compared, comparison, width, dark):
    found, log = browse(comparison / "index.html", width, dark)
    assert log == []
    assert found["title"] == f"2 runs: {HOSTILE} 0, {HOSTILE} 1"
    assert found["images"] == found["loaded"] == compared.count("<img ")
    assert found["images"] > 15
    assert (found["scripts"], found["requests"]) == (0, 0)
    assert found["seen"] == width
    assert found["needed"] <= width
    assert found["widest"] <= width
    # What is drawn is light on a dark page, and dark on a light one.
    if dark:
        assert max(found["ground"]) < 50 and found["ink"] > 200
    else:
        assert min(found["ground"]) > 250 and found["ink"] < 60


def test_runs_are_told_apart_by_their_folders_and_own_fields(call, workdirs, tmp_path):
    folders = []
    for name, rate in (("one", 0.1), ("two, and more", 0.2)):
        (tmp_path / name).mkdir()
        folders.append(copied(workdirs[0], tmp_path / name))
        shutil.rmtree(folders[-1] / "checkpoints")
        config = json.loads((folders[-1] / "config.json").read_text())
        config["optim"]["learning_rate"] = rate
        config["train"]["steps"] = 3 if name == "one" else 50
        (folders[-1] / "config.json").write_text(json.dumps(config))
    flags = (*(f"--workdir={folder}" for folder in folders), "--config.seed=7")
    done = call("report.py", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    unfinished = f"warning: {folders[1]} is not finished: it has logged step 3 of 50"
    assert unfinished in done.stderr and f"{folders[0]} is not" not in done.stderr
    (page,) = (file.read_text() for file in tmp_path.glob("runs/*/index.html"))
    assert f"<th>{folders[0]}</th><th>{folders[1]}</th>" in page
    assert "<td>config: optim.learning_rate</td><td>0.1</td><td>0.2</td>" in page
    compared, _, _ = page.partition("<h2>From here on")
    assert re.search(rf"{folders[0]} ends at .*{folders[1]} ends at", compared)
    assert compared.count("<table>") == 1
    assert "<td>seed</td><td>0</td>" in page


def test_a_run_in_progress_is_reported_as_far_as_it_is(call, workdirs, tmp_path):
    workdir = copied(workdirs[0], tmp_path)
    (workdir / "final_metrics.json").unlink()
    metrics = workdir / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 4, "train/lo')
    page, said = report(call, workdir)
    unfinished, torn = "is not finished: it has logged step 3 of 3", "1 unreadable"
    for words in (unfinished, torn):
        assert words in said and words in page
    assert 'alt="confusion matrix' in page and 'alt="loss over the steps' in page


def test_a_damaged_file_of_figures_is_named(call, workdirs, tmp_path):
    workdir = copied(workdirs[0], tmp_path)
    (workdir / "final_metrics.json").write_text("")
    page, said = report(call, workdir)
    assert "final_metrics.json" in said and "is not finished" in said
    assert 'alt="loss over the steps' in page


def test_without_a_checkpoint_there_are_still_curves(call, workdirs, tmp_path):
    workdir = copied(workdirs[0], tmp_path)
    shutil.rmtree(workdir / "checkpoints")
    page, said = report(call, workdir)
    assert "has no checkpoint" in said and "has no checkpoint" in page
    assert 'alt="loss over the steps' in page and "confusion" not in page
    assert 'alt="layers of CifarCNN' in page


def test_a_folder_that_is_not_one_is_refused(call, workdirs, tmp_path):
    workdir = copied(workdirs[0], tmp_path)
    (workdir / "report").write_text("in the way")
    shutil.rmtree(workdir / "checkpoints")
    nothing = shutil.copytree(workdir, tmp_path / "nothing")
    (nothing / "metrics.jsonl").unlink()
    cases = {
        (): "got no --workdir=DIR, need the folder of a run",
        (f"--workdir={tmp_path}/no,{workdir}",): f"{tmp_path}/no/config.json",
        ("--workdir=~/no",): r"/home\d+/no/config.json",
        (f"--workdir={workdir}",): "need a folder that can be written",
        (f"--workdir={nothing}",): "nothing to report yet",
        (f"--workdir={workdirs[0]},{workdirs[1]}",): "need a folder that can be writ",
    }
    (tmp_path / "runs").write_text("in the way of a comparison")
    for flags, words in cases.items():
        done = call("report.py", *flags, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        *warnings, error = done.stderr.splitlines()
        assert re.fullmatch(rf"error: .*{words}.*", error), done.stderr
        assert all(line.startswith("warning: ") for line in warnings)

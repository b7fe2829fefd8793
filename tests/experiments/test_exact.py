"""The page of exact accuracies: made of the committed networks alone, saying what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from experiments.deciding.comparison import Row, compare
from experiments.deciding.network import Network, read_networks, written
from experiments.deciding.page import PAPER, build_page
from experiments.exact import NETWORKS, PAGE, RESULTS, main
from newrelax.document import markdown
from tests.support.decided import OWN, VERDICTS, decided, run, write

KEPT = read_networks(RESULTS / NETWORKS)
GROUPS = list(dict.fromkeys(network.group for network in KEPT))


def rows_of(group: tuple[str, str, str, float]) -> list[Row]:
    return compare(network for network in KEPT if network.group == group)


def page(*networks: Network) -> str:
    return markdown(build_page(networks))


def cells(text: str, method: str) -> list[list[str]]:
    """The fields of a method's lines, without the small print beside its name."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return [line[1:] for line in lines if line[0].split(" <sub>")[0] == method]


def test_made_again_from_what_is_kept_it_has_the_same_bytes(tmp_path: Path) -> None:
    shutil.copy(RESULTS / NETWORKS, tmp_path)
    assert main(["--out", str(tmp_path)]) == 0
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in RESULTS.iterdir()}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group[2]} on {group[1]}, {group[0]}")
def test_its_figures_are_those_of_the_verdicts(group: tuple[str, str, str, float]) -> None:
    origin, dataset, model, eps = group
    sections = (RESULTS / PAGE).read_text().split("\n## ")
    start = f"{model} on {dataset}, ε = {eps:g}, "
    (section,) = (each for each in sections if each.startswith(start) and f" images: {origin}\n" in each)
    for row in rows_of(group):
        ((own, exact, *_),) = cells(section, row.method)
        own_share, exact_share = (
            sum(100 * count / row.images for count in counts) / len(row.networks)
            for counts in ([each.own for each in row.networks], [each.proven for each in row.networks])
        )
        assert float(own.split(" ")[0]) == pytest.approx(own_share, abs=0.0501)
        assert float(exact.split(" ")[0]) == pytest.approx(exact_share, abs=0.0501)


def test_every_rung_of_a_kept_network_is_counted() -> None:
    assert [network for network in KEPT if sum(network.rungs.values()) != network.images] == []


def test_a_line_has_both_accuracies_both_distances_and_both_shares() -> None:
    text = page(decided("DeepZ", 680, 820), decided("IBP", 880, 890))
    assert cells(text, "DeepZ")[0] == ["68.0", "82.0", "14.0", "20.0", "7.0", "35 %", "65 %"]
    assert cells(text, "IBP")[0] == ["88.0", "89.0", "1.0", "", "", "", ""]


def test_what_is_decided_is_no_range_whatever_the_rounding() -> None:
    text = page(decided("CROWN-IBP", 8656, 8671, images=10_000))
    assert cells(text, "CROWN-IBP")[0][:2] == ["86.6", "86.7"] and " to " not in cells(text, "CROWN-IBP")[0][2]


def test_what_is_left_open_is_a_range() -> None:
    text = page(decided("DeepZ", 680, 820, falsified=160), decided("IBP", 880, 890))
    assert cells(text, "DeepZ")[0] == ["68.0", "82.0 to 84.0", "14.0 to 16.0", "20.0", "5.0 to 7.0", "25 to 35 %", "65 to 75 %"]


def test_seeds_have_a_spread() -> None:
    networks = [decided("IBP", own, own + 10, seed=seed) for seed, own in enumerate((870, 880, 890))]
    assert cells(page(*networks), "IBP")[0][:2] == ["88.0 ± 1.0", "89.0 ± 1.0"]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (
            [decided("DeepZ", 680, 820), decided("hBox", 780, 800)],
            "Of the distance to IBP's network 53 % is the training's, 47 % the certifiers'. The certifier's part is largest "
            "for DeepZ (20.0 points by own certifiers, 7.0 decided exactly) and smallest for hBox (10.0 points "
            "by own certifiers, 9.0 decided exactly). Decided exactly, clearly behind: DeepZ, hBox.",
        ),
        (
            [decided("DeepZ", 680, 950), decided("hBox", 780, 800), decided("CROWN-IBP", 780, 885)],
            "Decided exactly, clearly behind: hBox; ahead: DeepZ; neither: CROWN-IBP.",
        ),
        ([decided("DeepZ", 680, 850, falsified=50)], "Decided exactly, none is clearly behind or ahead."),
    ],
    ids=["all behind", "one ahead", "one open"],
)
def test_its_sentences_follow_the_figures(others: list[Network], said: str) -> None:
    assert said in page(decided("IBP", 880, 890), *others)


def test_a_network_alone_has_no_distance_to_speak_of() -> None:
    text = page(decided("IBP", 880, 890))
    assert "Of the distance" not in text and "![" not in text


def test_other_relaxations_than_the_papers_are_folded_away() -> None:
    text = page(decided("IBP", 880, 890), decided("Mine:a=1", 680, 820))
    before, after = text.split("<details><summary>1 other relaxation", 1)
    assert cells(before, "IBP") and not cells(before, "Mine:a=1") and cells(after, "Mine:a=1")


def test_what_it_is_given_is_kept_beside_the_page(tmp_path: Path) -> None:
    verdicts, runs, out = write(tmp_path / "verdicts", complete=VERDICTS, own=OWN), tmp_path / "runs", tmp_path / "out"
    run(runs / "hBox-seed0", method="hBox", seed=0)
    assert main([f"DeepZ={verdicts}", "--origin", "weights of a friend", "--runs", str(runs), "--out", str(out)]) == 0
    kept = [(network.origin, network.method) for network in read_networks(out / NETWORKS)]
    assert kept == [("trained here, 60 epochs", "hBox"), ("weights of a friend", "DeepZ")]
    assert "CONV on digits, ε = 0.1, 360 images: weights of a friend" in (out / PAGE).read_text()


def test_nothing_kept_and_nothing_given_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 2
    assert "expected METHOD=FOLDER or --runs" in capsys.readouterr().err


def test_a_refused_folder_leaves_the_page_as_it_is(tmp_path: Path) -> None:
    (tmp_path / NETWORKS).write_text(written([decided("IBP", 880, 890)]))
    assert main(["--out", str(tmp_path)]) == 0
    before = (tmp_path / PAGE).read_bytes()
    assert main(["--out", str(tmp_path), f"DeepZ={tmp_path}"]) == 2
    assert (tmp_path / PAGE).read_bytes() == before


def test_the_papers_relaxations_are_in_the_kept_groups() -> None:
    assert {network.method for network in KEPT if network.model == "CONV" and network.dataset == "mnist"} == set(PAPER)

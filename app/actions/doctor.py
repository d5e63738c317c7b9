"""What this installation has: devices, versions, kernels, store, data, browser."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """Facts, and what is wrong among them."""

    facts: dict[str, str]
    problems: list[str]

    def __str__(self) -> str:
        from app.tables import text_facts

        verdict = "\n".join(f"problem: {problem}" for problem in self.problems) or "nothing is wrong"
        return text_facts(self.facts) + "\n\n" + verdict


def doctor() -> Diagnosis:
    """Shows devices, versions, kernels, run store, data found and browser, and names what is wrong."""
    from forecasting.environment import describe

    about = describe()
    facts = dict(about["versions"])
    facts |= _devices() | _kernels()
    problems: list[str] = []
    facts |= _store(problems) | _data() | _browser()
    if about["commit"]:
        facts["commit"] = about["commit"]
    return Diagnosis(facts, problems)


def _devices() -> dict[str, str]:
    import torch

    from forecasting.environment import processor

    facts = {"processor": f"{processor()}, {os.cpu_count()} threads, {torch.get_num_threads()} used"}
    count = torch.cuda.device_count()
    names = [torch.cuda.get_device_name(index) for index in range(count)]
    facts["GPU"] = ", ".join(names) or "none visible; training runs on the processor"
    return facts


def _kernels() -> dict[str, str]:
    import pkgutil

    import kernels

    found = [module.name for module in pkgutil.iter_modules(kernels.__path__) if module.ispkg]
    return {"fused kernels": ", ".join(found) or "none in this version"}


def _store(problems: list[str]) -> dict[str, str]:
    from app.home import home
    from app.runs import RunStore
    from datasets.errors import ForetideError
    from datasets.files import ensure_writable

    try:
        ensure_writable(home() / "probe")
        store = RunStore()
        projects, runs = store.projects(), store.runs(limit=1000)
        found = f"{len(runs)} run{'' if len(runs) == 1 else 's'}, projects: {', '.join(projects) or 'none yet'}"
    except ForetideError as error:
        problems.append(str(error))
        found = "cannot be used"
    return {"home": str(home()), "run store": found}


def _data() -> dict[str, str]:
    from app.actions.data import list_datasets

    listed = list_datasets()
    here = [row["name"] for row in listed.rows if row["here"] == "yes"]
    return {"data folder": str(listed.root), "datasets found": f"{len(here)} of {len(listed.rows)}: {', '.join(here)}"}


def _browser() -> dict[str, str]:
    from app.report import browser, picture_hint

    found = browser()
    return {"browser": found or f"none; {picture_hint()}"}

"""Known vulnerabilities in what is installed, as PyPI tells them: part of `make lint`.

A vulnerability fails it. That the service cannot be reached, is too slow, or does not know the packages (a mirror may
not) does not, but is said: then nothing was looked at, and nobody should think otherwise.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_LIMIT_S = 20.0
_COMMAND = (sys.executable, "-P", "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable")


def main() -> int:
    try:
        done = subprocess.run([*_COMMAND, "--timeout", "5"], capture_output=True, text=True, timeout=_LIMIT_S)
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"audit skipped: the service did not answer within {_LIMIT_S:.0f} s")
        return 0
    except (json.JSONDecodeError, KeyError):
        words = done.stderr.strip().splitlines()
        print(f"audit skipped: {words[-1] if words else 'pip-audit said nothing'}")
        return 0
    audited = [package for package in packages if "skip_reason" not in package]
    for package in audited:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
    if not audited:
        print(f"audit skipped: the service knows none of the {len(packages)} packages")
    else:
        print(f"audited {len(audited)} of {len(packages)} packages")
    return 1 if any(package["vulns"] for package in audited) else 0


if __name__ == "__main__":
    sys.exit(main())

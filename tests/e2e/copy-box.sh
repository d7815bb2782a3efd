#!/bin/bash
# SPDX-License-Identifier: MIT
#
# copy-box.sh - tests/e2e/copy.sh in the KVM host in a box, with VMs of two processors.
# Where the host's KVM can run Linux, copy.sh has used it already.
#
# Usage: tests/e2e/copy-box.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e-box.sh
. "$(dirname "$0")/../lib/e2e-box.sh"

box_need copy
box_run "$ROOT/tests/e2e/copy.sh" -e VMPOOL_E2E_VCPUS=2

#!/bin/sh
# Make a machine ready for `make demo` and `make test`: the system packages that a viewer
# without a screen needs, and a virtual environment with this project and its tools.
# Usage: scripts/setup.sh VENV. Running it again changes nothing that is already right.
set -eu

venv=${1:?usage: scripts/setup.sh VENV}
cd "$(dirname "$0")/.."

# OpenGL in software, an X server without a screen, and what Qt's xcb platform loads.
debian_packages="
    xvfb xauth python3-venv
    libgl1 libgl1-mesa-dri libegl1 libglx0 libfontconfig1 libfreetype6 libdbus-1-3 libglib2.0-0
    libx11-xcb1 libxkbcommon0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-glx0 libxcb-icccm4
    libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render0 libxcb-render-util0 libxcb-shape0
    libxcb-shm0 libxcb-sync1 libxcb-xfixes0 libxcb-xkb1"

missing_debian_packages() {
    for package in $debian_packages; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            printf ' %s' "$package"
    done
}

install_system_packages() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        command -v xvfb-run >/dev/null ||
            echo "Not a Debian system: install xvfb-run and OpenGL in software yourself to test the viewer."
        return
    fi
    missing=$(missing_debian_packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null; then
        as_root=sudo
    else
        echo "These Debian packages are missing and only root can install them: apt-get install$missing"
        return
    fi
    echo "Installing Debian packages:$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086  # one word a package
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
}

find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "No Python of version 3.11, 3.12 or 3.13 found: TensorFlow has packages for these only." >&2
    return 1
}

install_project() {
    python=$(find_python)
    if [ ! -x "$venv/bin/pip" ]; then
        "$python" -m venv --clear "$venv"
    fi
    bar=off
    [ ! -t 1 ] || bar=on
    echo "Installing napari-unet and its tools into $venv (3.2 GB with TensorFlow; some minutes)"
    "$venv/bin/pip" install --disable-pip-version-check --progress-bar "$bar" --editable '.[dev]'
}

install_system_packages
install_project

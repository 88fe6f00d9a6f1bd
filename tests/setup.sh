#!/usr/bin/env bash
# Installs what building (`setup.sh build`) and testing (`setup.sh test`) need and is missing, from Debian's
# packages. Asks nothing, changes nothing that is there, and needs no network when nothing is missing.
#
# `setup.sh miri` adds a nightly Rust with miri, and says when that cannot be had; no other part of the tests needs it.
# `setup.sh php-config` only prints the php-config that belongs to $PHP. Called by the Makefile and tests/run.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

PHP=${PHP:-php}
# rust-version in Cargo.toml is the one place that knows it.
RUST_NEEDED=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
have_sbin() { have "$1" || [ -x "/usr/sbin/$1" ]; }

main() {
    case "${1:-}" in
        php-config) php_config ;;
        build) set_up_build ;;
        miri) add_miri ;;
        test) set_up_build; set_up_test ;;
        *) die "usage: tests/setup.sh build|test|php-config" ;;
    esac
}

set_up_build() {
    check_rust
    local missing=()
    have gcc || missing+=(gcc libc6-dev)
    have_libclang || missing+=(libclang-dev)
    have "$PHP" || missing+=("$(php_package cli)")
    have_php_headers || missing+=("$(php_package dev)")
    install_packages "${missing[@]}"
    have "$PHP" || die "there is no $PHP on this machine, and Debian's packages brought none"
    have_php_headers || die "the headers of $PHP are missing: install its -dev package (php-config and include/php)"
    fetch_crates
}

set_up_test() {
    local missing=()
    have chromium || missing+=(chromium)
    have strace || missing+=(strace)
    have curl || missing+=(curl)
    have openssl || missing+=(openssl)
    # certutil, by which Chromium gets to know an authority.
    have certutil || missing+=(libnss3-tools)
    have node || missing+=(nodejs)
    have npm || missing+=(npm)
    have python3 || missing+=(python3)
    have_python_venv || missing+=(python3-venv)
    have valgrind || missing+=(valgrind)
    # Of libFuzzer, which is C++.
    have c++ || missing+=(g++)
    # Servers live where an ordinary user's PATH does not look.
    have_sbin nginx || missing+=(nginx)
    have_sbin "$(php_fpm)" || missing+=("$(php_package fpm)")
    have "$(php_fpm | sed s/fpm/cgi/)" || missing+=("$(php_package cgi)")
    have_apache_php || missing+=(apache2-bin "libapache2-mod-$(php_package '')")
    missing_frameworks
    install_packages "${missing[@]}"
    add_rust_components
    fetch_crates tests/fuzz
    install_node_modules
    install_autobahn
}

# What php/lib is tested in. Debian has them for its own PHP, and they are no more than files.
missing_frameworks() {
    local part
    "$PHP" -r 'exit((int) !extension_loaded("mbstring"));' || missing+=("$(php_package mbstring)")
    for part in broadcasting routing http events container bus config; do
        [ -f "/usr/share/php/Illuminate/${part^}/autoload.php" ] || missing+=("php-illuminate-$part")
    done
    [ -f /usr/share/php/Symfony/Component/Mercure/autoload.php ] || missing+=(php-symfony-mercure)
    for part in Config DependencyInjection Yaml; do
        [ -f "/usr/share/php/Symfony/Component/$part/autoload.php" ] || missing+=("$(symfony_package "$part")")
    done
    [ -f /usr/share/php/GuzzleHttp/Psr7/autoload.php ] || missing+=(php-guzzlehttp-psr7)
}

# DependencyInjection is php-symfony-dependency-injection.
symfony_package() { sed -E 's/([a-z])([A-Z])/\1-\2/g; s/.*/php-symfony-\L&/' <<<"$1"; }

check_rust() {
    local hint="install Rust $RUST_NEEDED or newer with rustup (https://rustup.rs)"
    # rustup writes no PATH into shells that are already open.
    if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
        die "cargo is in $HOME/.cargo/bin, which is not in the PATH: run . \"\$HOME/.cargo/env\" and try again"
    fi
    have cargo || die "cargo is missing: $hint"
    local version
    version=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$RUST_NEEDED" "$version" | sort -V | head -n1)" = "$RUST_NEEDED" ] ||
        die "Rust $version is too old: $hint"
}

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    # bindgen loads libclang.so, and the headers that clang brings itself come with the -dev package.
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so' >/dev/null || compgen -G '/usr/lib/*/libclang*.so' >/dev/null
}

# php8.2 has php-config8.2; plain php has php-config. As an absolute path, which ext-php-rs wants.
php_config() {
    [ -z "${PHP_CONFIG:-}" ] || { echo "$PHP_CONFIG"; return; }
    local name=${PHP##*/} dir=''
    [ "$name" = "$PHP" ] || dir=${PHP%/*}/
    command -v "${dir}php-config${name#php}" || command -v php-config || echo php-config
}

# For the same PHP: php-config may be there and belong to another one.
have_php_headers() {
    local config api
    config=$(php_config)
    have "$PHP" && have "$config" || return
    api=$("$PHP" -n -i | sed -n 's/^PHP Extension => //p')
    [ "$("$config" --phpapi)" = "$api" ] && [ -f "$("$config" --include-dir)/main/php.h" ]
}

# Debian's name of a package of this PHP: php-cli when any will do, phpX.Y-cli when one is asked for or there.
php_package() {
    local version=''
    if have "$PHP"; then
        version=$("$PHP" -n -r 'echo PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION;')
    elif [[ $PHP =~ ^php([0-9]+\.[0-9]+)$ ]]; then
        version=${BASH_REMATCH[1]}
    elif [ "$PHP" != php ]; then
        die "there is no $PHP on this machine"
    fi
    echo "php$version${1:+-$1}"
}

# php-fpm8.2 belongs to the PHP that is tested.
php_fpm() { "$PHP" -n -r 'echo "php-fpm", PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION;'; }

have_apache_php() {
    local module
    module=$("$PHP" -n -r 'echo "libphp", PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION, ".so";')
    have_sbin apache2 && [ -f "/usr/lib/apache2/modules/$module" ] && [ -f /usr/lib/apache2/modules/mod_mpm_prefork.so ]
}

install_packages() {
    [ $# -gt 0 ] || return 0
    say "installing $*"
    have apt-get || die "install these yourself, there is no apt-get here: $*"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || die "installing needs root: run \"apt-get install $*\" as root and try again"
        as_root=(sudo)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q ||
        say "the package lists could not be updated, trying with the old ones"
    local before service status=0
    before=$(services)
    forbid_services "${as_root[@]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" || status=$?
    allow_services "${as_root[@]}"
    [ "$status" -eq 0 ] || die "installing failed: $*"
    for service in $(services); do
        grep -qxF "$service" <<<"$before" || disable_service "$service" "${as_root[@]}"
    done
}

# Debian starts and enables what it installs. The tests start their own servers, on ports of their own: what this
# script brings to a machine stays asleep, and a service that was there before is left as it is.
POLICY=/usr/sbin/policy-rc.d

services() {
    local script
    for script in /etc/init.d/*; do
        [[ ${script##*/} =~ ^(nginx|apache2|apache-htcacheclean|php[0-9.]+-fpm)$ ]] && echo "${script##*/}"
    done
    return 0
}

forbid_services() {
    # Containers have one already.
    [ ! -e "$POLICY" ] || return 0
    trap 'allow_services '"$*" EXIT
    forbidden_here=yes
    printf '#!/bin/sh\n# While tests/setup.sh of realtime installs packages: no service starts.\nexit 101\n' |
        "$@" tee "$POLICY" >/dev/null
    "$@" chmod 755 "$POLICY"
}

allow_services() {
    [ -z "${forbidden_here:-}" ] || "$@" rm -f "$POLICY"
    forbidden_here=''
}

disable_service() {
    local service=$1
    shift
    say "$service stays off: the tests start their own"
    if have systemctl; then
        "$@" systemctl disable --quiet "$service" >/dev/null 2>&1
    elif have update-rc.d; then
        "$@" update-rc.d "$service" disable >/dev/null 2>&1
    fi
    return 0
}

fetch_crates() {
    local target directory=${1:-.}
    target=$(rustc -vV | sed -n 's/^host: //p')
    # Offline first: when all is there, nobody waits for a network.
    cargo fetch --quiet --locked --offline --target "$target" --manifest-path "$directory/Cargo.toml" 2>/dev/null && return
    say "fetching the Rust libraries of $directory"
    cargo fetch --locked --target "$target" --manifest-path "$directory/Cargo.toml" ||
        die "fetching the Rust libraries failed; after a change of Cargo.toml: cargo update -w --manifest-path $directory/Cargo.toml"
}

add_rust_components() {
    local component
    for component in rustfmt clippy; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        have rustup || die "$component is missing: install it beside cargo"
        say "adding $component"
        rustup component add "$component" || die "rustup could not add $component"
    done
}

# A machine without a network, or without rustup, does without.
add_miri() {
    if ! cargo +nightly miri --version >/dev/null 2>&1; then
        have rustup || { say "miri is missing, and there is no rustup to add it"; return 1; }
        say "adding a nightly Rust with miri"
        timeout 300 rustup toolchain install nightly --profile minimal --component miri,rust-src ||
            { say "rustup could not add miri"; return 1; }
    fi
    # The standard library as miri runs it; made once.
    cargo +nightly miri setup >/dev/null 2>&1 || { say "miri cannot make its standard library"; return 1; }
}

# npm leaves a copy of the lock in node_modules: an older one than ours means that ours has changed.
install_node_modules() {
    local directory lock copy
    for directory in tests/browser tests/protocols; do
        lock=$directory/package-lock.json copy=$directory/node_modules/.package-lock.json
        [ -f "$lock" ] || continue
        [ -f "$copy" ] && [ ! "$lock" -nt "$copy" ] && continue
        say "installing the packages of $directory"
        npm ci --prefix "$directory" --no-audit --no-fund || die "npm ci failed in $directory"
    done
}

# Debian has pip's own wheels, of which a venv is made, in a package apart.
have_python_venv() { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Beside what was installed lies a copy of what was asked for: another one means that ours has changed.
install_autobahn() {
    local wanted=tests/autobahn/requirements.txt venv=build/autobahn
    cmp -s "$wanted" "$venv/requirements.txt" && return
    say "installing the packages of tests/autobahn"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 could not make $venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-virtualenv -r "$wanted" ||
        die "pip install failed in tests/autobahn"
    cp "$wanted" "$venv/"
}

main "$@"

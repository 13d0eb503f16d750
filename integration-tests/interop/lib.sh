# shellcheck shell=bash
# What the scripts of all languages share. Sourced, not run.

interop=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$interop/../.." && pwd)

# Everything that is downloaded or compiled goes below the target directory, which is not under version control.
install_folder() {
    printf '%s/interop/%s\n' "${CARGO_TARGET_DIR:-$repository/target}" "$1"
}

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || {
            printf 'this folder needs %s, which is not on the machine\n' "$tool" >&2
            exit 127
        }
    done
}

need_broker() {
    if [[ -z ${WARREN_AMQP_URI:-} ]]; then
        printf 'set WARREN_AMQP_URI to the address of a running broker, for example amqp://guest:guest@127.0.0.1:5672/%%2f\n' >&2
        exit 2
    fi
}

# The list that all clients share. What needs TLS is on it when WARREN_TLS_PORT says where.
shared_scenarios() {
    if [[ -n ${WARREN_TLS_PORT:-} ]]; then
        cat "$interop/scenarios"
    else
        grep -v '^tls' "$interop/scenarios"
    fi
}

# scenarios_of FOLDER: a list of its own, where it has one, or the shared one.
scenarios_of() {
    if [[ -f $interop/$1/scenarios ]]; then
        cat "$interop/$1/scenarios"
    else
        shared_scenarios
    fi
}

# The scenarios given as arguments, or every one of them.
chosen_scenarios() {
    if (($#)); then
        printf '%s\n' "$@"
    else
        shared_scenarios
    fi
}

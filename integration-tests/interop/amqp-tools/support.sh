# shellcheck shell=bash
# What the scenarios share: calls of the tools with a deadline, consumers in the background, comparisons. Sourced by run.

wait_seconds=15
work=$(mktemp -d)

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

equal() { # what got expected
    [[ $2 == "$3" ]] || fail "$1: expected '$3', got '$2'"
}

# Runs one scenario; meant for a subshell, whose exit removes all that the scenario left on the broker.
attempt() {
    set -eE
    trap 'printf "%s failed in line %s\n" "$BASH_COMMAND" "$LINENO" >&2' ERR
    trap tidy EXIT
    queues=()
    consumers=()
    id="interop.tools.$1.$BASHPID.$RANDOM"
    declare -F "$1" >/dev/null || fail "no such scenario here"
    "$1"
}

tidy() {
    local entry
    for entry in "${consumers[@]}"; do
        kill -- "-$entry" 2>/dev/null || true
    done
    wait
    for entry in "${queues[@]}"; do
        amqp delete-queue -q "$entry" >/dev/null 2>&1 || true
    done
}

# amqp TOOL OPTION...: one of the tools, against the broker under test.
amqp() {
    timeout "$wait_seconds" "amqp-$1" --url="$WARREN_AMQP_URI" "${@:2}"
}

# new_queue VARIABLE: declares a durable queue with a fresh name.
new_queue() {
    local name="$id.${#queues[@]}"
    queues+=("$name")
    equal "declared name" "$(amqp declare-queue -d -q "$name")" "$name"
    printf -v "$1" %s "$name"
}

publish() { # queue body option...
    amqp publish -r "$1" -b "$2" "${@:3}"
}

# The commands that amqp-consume runs: it would take options of `sh -c` for its own, so they are scripts.
prepare_commands() {
    # Accepts a message and prints it as one line.
    printf '#!/bin/sh\ncat\necho\n' >"$work/print"
    # Prints it and refuses it.
    printf '#!/bin/sh\ncat\necho\nexit 1\n' >"$work/refuse"
    # Prints it and never comes to an end with it.
    printf '#!/bin/sh\ncat\necho\nexec tail -f /dev/null\n' >"$work/hold"
    chmod +x "$work/print" "$work/refuse" "$work/hold"
}

# start_consumer VARIABLE COMMAND OPTION...: consumes in the background; VARIABLE becomes the descriptor of its lines.
start_consumer() {
    local pipe descriptor
    pipe="$work/pipe.$BASHPID.${#consumers[@]}"
    mkfifo "$pipe"
    exec {descriptor}<>"$pipe"
    # A process group of its own, so that the command it runs can be ended with it.
    setsid amqp-consume --url="$WARREN_AMQP_URI" "${@:3}" "$work/$2" >"$pipe" 2>"$pipe.errors" &
    consumers+=("$!")
    printf -v "$1" %s "$descriptor"
}

next_line() { # descriptor what
    local line
    read -r -t "$wait_seconds" -u "$1" line || fail "waited $wait_seconds s for $2"
    printf '%s\n' "$line"
}

# probe DESCRIPTOR EXCHANGE KEY: publishes until the consumer shows that its binding is there.
probe() {
    local line="" give_up=$((SECONDS + wait_seconds))
    while [[ $line != "$id probe" ]]; do
        ((SECONDS < give_up)) || fail "a consumer of $2 was never ready"
        amqp publish -e "$2" -r "$3" -b "$id probe"
        read -r -t 0.2 -u "$1" line || true
    done
}

# next_news DESCRIPTOR WHAT: the next line of this scenario that is no probe.
next_news() {
    local line
    while line=$(next_line "$1" "$2"); do
        if [[ $line == "$id "* && $line != "$id probe" ]]; then
            printf '%s\n' "${line#"$id "}"
            return
        fi
    done
    return 1
}

# shellcheck shell=bash
# shellcheck disable=SC2154 # $logs is the caller's
# A broker of one's own: starts a warren on a free port with a data directory that goes with it. Sourced, not run.
# The caller sets $logs, a folder for the file `broker`, and `trap end_broker EXIT`.

ready_seconds=60
stop_seconds=30
broker_pid=
drain_pid=
data=

end_broker() {
    if [[ -n $broker_pid ]]; then kill -KILL "$broker_pid" 2>/dev/null || true; fi
    if [[ -n $drain_pid ]]; then kill "$drain_pid" 2>/dev/null || true; fi
    if [[ -n $data ]]; then rm -rf "$data"; fi
    broker_pid=
    drain_pid=
    data=
}

# certificate FOLDER NAME AUTHORITY OPTION...: NAME.pem and NAME.key, which AUTHORITY (or NAME itself) vouches for.
certificate() {
    local issuer=()
    if [[ $2 != "$3" ]]; then issuer=(-CA "$1/$3.pem" -CAkey "$1/$3.key"); fi
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -keyout "$1/$2.key" -out "$1/$2.pem" "${issuer[@]}" "${@:4}" 2>/dev/null
}

# What TLS needs: an authority, the broker's certificate, one that logs guest in, and an authority that nobody trusts.
make_certificates() { # folder
    mkdir -p "$1"
    certificate "$1" ca ca -subj "/CN=interop authority"
    certificate "$1" stranger stranger -subj "/CN=another authority"
    certificate "$1" server ca -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -addext basicConstraints=critical,CA:FALSE
    certificate "$1" client ca -subj /O=interop/CN=guest -addext basicConstraints=critical,CA:FALSE \
        -addext extendedKeyUsage=clientAuth
}

# Leaves the addresses in WARREN_AMQP_URI and, of the management API, in WARREN_HTTP_URI; the port of the TLS listener in
# WARREN_TLS_PORT, and in WARREN_TLS_FILES the folder with the certificates.
start_broker() {
    local binary=$1 line give_up=$((SECONDS + ready_seconds))
    [[ -x $binary ]] || {
        printf 'there is no warren binary at %s\n' "$binary" >&2
        return 1
    }
    data=$(mktemp -d)
    mkfifo "$data/output"
    export WARREN_TLS_FILES=$data/tls
    make_certificates "$WARREN_TLS_FILES"
    WARREN__MANAGEMENT__LISTEN=127.0.0.1:0 WARREN__LISTENERS__TLS=127.0.0.1:0 \
        WARREN__TLS__CERTIFICATE=$WARREN_TLS_FILES/server.pem WARREN__TLS__KEY=$WARREN_TLS_FILES/server.key \
        WARREN__TLS__CA=$WARREN_TLS_FILES/ca.pem WARREN__TLS__VERIFY=peer WARREN__TLS__LOGIN_FROM=common_name \
        "$binary" --listen 127.0.0.1:0 --data-dir "$data/data" >"$data/output" 2>&1 &
    broker_pid=$!
    exec {output}<"$data/output"
    while ((SECONDS < give_up)) && read -r -t "$ready_seconds" -u "$output" line; do
        printf '%s\n' "$line" >>"$logs/broker"
        if [[ $line =~ http://127\.0\.0\.1:[0-9]+ ]]; then export WARREN_HTTP_URI=${BASH_REMATCH[0]}; fi
        if [[ $line =~ amqps://127\.0\.0\.1:([0-9]+) ]]; then export WARREN_TLS_PORT=${BASH_REMATCH[1]}; fi
        if [[ $line == *ready* && $line =~ amqp://(127\.0\.0\.1:[0-9]+) ]]; then
            export WARREN_AMQP_URI="amqp://guest:guest@${BASH_REMATCH[1]}/%2f"
            # The pipe must go on being read, or a talkative broker would stand still.
            cat <&"$output" >>"$logs/broker" &
            drain_pid=$!
            return 0
        fi
    done
    printf 'the broker never said that it is ready:\n' >&2
    cat "$logs/broker" >&2 || true
    return 1
}

# One check more: the broker is still there at the end, and leaves in good order when it is asked to.
stop_broker() {
    local give_up=$((SECONDS + stop_seconds)) status=0
    if ! kill -TERM "$broker_pid" 2>/dev/null; then
        printf 'FAIL broker: it ended during the run\n'
        return 1
    fi
    # Its end closes the pipe, and that ends the reader.
    timeout "$stop_seconds" tail --pid="$broker_pid" -f /dev/null || true
    if ((SECONDS >= give_up)); then
        printf 'FAIL broker: still running %s s after SIGTERM\n' "$stop_seconds"
        return 1
    fi
    wait "$broker_pid" || status=$?
    broker_pid=
    if ((status != 0)); then
        printf 'FAIL broker: exit status %s after SIGTERM\n' "$status"
        return 1
    fi
}

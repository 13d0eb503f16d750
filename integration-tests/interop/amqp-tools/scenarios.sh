# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables that new_queue and start_consumer set, and those of support.sh
# The scenarios that rabbitmq-c's tools can take part in. Sourced by run.

hello_world() {
    local status=0
    new_queue queue
    publish "$queue" "hello, burrow"
    equal "body" "$(amqp get -q "$queue")" "hello, burrow"
    amqp get -q "$queue" || status=$?
    equal "exit status for an empty queue" "$status" 2
}

work_queue() {
    local job
    new_queue queue
    start_consumer slow hold -q "$queue" -p 1
    publish "$queue" "job 0" -p
    equal "slow worker" "$(next_line "$slow" "the first job")" "job 0"
    # The slow worker sits on its one job, so fair dispatch leaves all the others to its colleague.
    start_consumer fast print -q "$queue" -p 1
    for job in {1..9}; do
        publish "$queue" "job $job" -p
    done
    for job in {1..9}; do
        equal "fast worker" "$(next_line "$fast" "a job")" "job $job"
    done
}

publish_subscribe() {
    local item
    # The key means nothing to a fanout exchange, but without one amqp-consume 0.11 crashes before it binds.
    start_consumer first print -A -x -e amq.fanout -r one
    start_consumer second print -A -x -e amq.fanout -r two
    probe "$first" amq.fanout ignored
    probe "$second" amq.fanout ignored
    grep -q "amq.gen-" "$work"/pipe."$BASHPID".0.errors || fail "the server-made name does not begin with amq.gen-"
    for item in {1..5}; do
        amqp publish -e amq.fanout -r ignored -b "$id news $item"
    done
    for item in {1..5}; do
        equal "first" "$(next_news "$first" "the news")" "news $item"
        equal "second" "$(next_news "$second" "the news")" "news $item"
    done
}

routing() {
    local severity
    start_consumer errors print -A -x -e amq.direct -r "$id.error"
    start_consumer infos print -A -x -e amq.direct -r "$id.info"
    probe "$errors" amq.direct "$id.error"
    probe "$infos" amq.direct "$id.info"
    for severity in info debug error errors info; do
        amqp publish -e amq.direct -r "$id.$severity" -b "$id $severity"
    done
    equal "errors" "$(next_news "$errors" "an error")" error
    equal "infos" "$(next_news "$infos" "an info")" info
    equal "infos" "$(next_news "$infos" "an info")" info
    # A last message of its own shows that nothing else came in between.
    amqp publish -e amq.direct -r "$id.error" -b "$id end"
    equal "errors" "$(next_news "$errors" "the end")" end
}

topics() {
    local key
    start_consumer critical print -A -x -e amq.topic -r "$id.*.critical"
    start_consumer all print -A -x -e amq.topic -r "$id.#"
    probe "$critical" amq.topic "$id.probe.critical"
    probe "$all" amq.topic "$id.probe"
    for key in kern.critical kern critical kern.late.critical cron.critical; do
        amqp publish -e amq.topic -r "$id.$key" -b "$id $key"
    done
    amqp publish -e amq.topic -r "$id" -b "$id bare"
    for key in kern.critical cron.critical; do
        equal "critical" "$(next_news "$critical" "a critical message")" "$key"
    done
    for key in kern.critical kern critical kern.late.critical cron.critical bare; do
        equal "all" "$(next_news "$all" "a message")" "$key"
    done
}

# refused WHAT TEXT COMMAND...: the tool must end with status 1 and this text.
refused() {
    local status=0 said
    said=$("${@:3}" 2>&1 >/dev/null) || status=$?
    equal "exit status over $1" "$status" 1
    [[ $said == *"$2"* ]] || fail "$1: '$said' lacks '$2'"
}

channel_error() {
    new_queue queue
    refused "a missing queue" "channel error 404, message: NOT_FOUND - no queue 'interop.missing' in vhost '/'" \
        amqp get -q interop.missing
    refused "another durability" "channel error 406, message: PRECONDITION_FAILED - inequivalent arg 'durable' for queue" \
        amqp declare-queue -q "$queue"
    refused "another's name space" "channel error 403, message: ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'" \
        amqp declare-queue -d -q amq.mine
}

connection_error() {
    local address=${WARREN_AMQP_URI#*@} user=${WARREN_AMQP_URI#*//}
    user=${user%%:*}
    refused "a missing vhost" "connection error 530, message: NOT_ALLOWED - vhost interop.nowhere not found" \
        timeout "$wait_seconds" amqp-get --url="${WARREN_AMQP_URI%/*}/interop.nowhere" -q any
    refused "a wrong password" \
        "connection error 403, message: ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN" \
        timeout "$wait_seconds" amqp-get --url="amqp://$user:wrong@$address" -q any
}

reconnect() {
    new_queue queue
    publish "$queue" first -p
    publish "$queue" second -p
    start_consumer held hold -q "$queue" -p 1
    equal "held" "$(next_line "$held" "the first message")" first
    # A killed client says no word of AMQP; what it held goes back to its old place.
    kill -KILL -- "-${consumers[0]}"
    start_consumer again print -q "$queue"
    equal "after reconnecting" "$(printf '%s\n' "$(next_line "$again" "a message")" "$(next_line "$again" "a message")" | sort)" \
        $'first\nsecond'
}

requeue() {
    new_queue queue
    publish "$queue" stubborn
    publish "$queue" later
    # amqp-consume leaves unacknowledged what its command refused, and goes after one message.
    amqp consume -q "$queue" -c 1 "$work/refuse" >/dev/null || true
    equal "again" "$(amqp consume -q "$queue" -c 1 "$work/print")" stubborn
    equal "rest" "$(amqp get -q "$queue")" later
}

basic_get() {
    local body
    new_queue queue
    for body in one two three; do
        publish "$queue" "$body"
    done
    equal "first" "$(amqp get -q "$queue")" one
    equal "second" "$(amqp get -q "$queue")" two
    equal "deleted with" "$(amqp delete-queue -q "$queue")" 1
}

large_message() {
    new_queue queue
    head -c 3000001 /dev/urandom >"$work/large"
    amqp publish -r "$queue" <"$work/large"
    amqp publish -r "$queue" </dev/null
    amqp get -q "$queue" >"$work/received"
    cmp "$work/large" "$work/received" >&2
    equal "empty body" "$(amqp get -q "$queue" | wc -c)" 0
}

tls() {
    local uri="amqps://${WARREN_AMQP_URI#*//}"
    uri="${uri%%@*}@localhost:$WARREN_TLS_PORT/%2f"
    new_queue queue
    head -c 500000 /dev/urandom >"$work/encrypted"
    timeout "$wait_seconds" amqp-publish --url="$uri" --ssl --cacert="$WARREN_TLS_FILES/ca.pem" -r "$queue" <"$work/encrypted"
    timeout "$wait_seconds" amqp-get --url="$uri" --ssl --cacert="$WARREN_TLS_FILES/ca.pem" -q "$queue" >"$work/received"
    cmp "$work/encrypted" "$work/received" >&2
    refused "a broker that nobody vouches for" "" \
        timeout "$wait_seconds" amqp-get --url="$uri" --ssl --cacert="$WARREN_TLS_FILES/stranger.pem" -q "$queue"
}

# shellcheck shell=bash
# One function per scenario; `admin` runs rabbitmqadmin in the scenario's own virtual host. Sourced, not run.

# has TEXT COMMAND...: what the command prints has the text in it.
has() {
    local text=$1 output
    shift
    output=$("$@")
    [[ $output == *"$text"* ]] || {
        printf '%s: %s is not in: %s\n' "$*" "$text" "$output" >&2
        return 1
    }
}

# hasnt TEXT COMMAND...: and this is not.
hasnt() {
    if has "$@" 2>/dev/null; then
        printf '%s: %s is still there\n' "${*:2}" "$1" >&2
        return 1
    fi
}

# fails COMMAND...: it must not succeed.
fails() {
    if "$@" >/dev/null 2>&1; then
        printf '%s: that should fail\n' "$*" >&2
        return 1
    fi
}

topology() {
    admin declare queue --name q --type quorum
    admin declare queue --name c --arguments '{"x-max-length": 5}'
    admin declare exchange --name e --type topic
    admin declare binding --source e --destination-type queue --destination q --routing-key 'a.#'
    admin declare binding --source amq.topic --destination-type exchange --destination e --routing-key 'b c/d'
    has 'quorum' admin list queues
    has 'topic' admin list exchanges
    has 'b c/d' admin list bindings
    has 'quorum' admin queues show --name q
    admin delete binding --source e --destination-type queue --destination q --routing-key 'a.#' --arguments '{}'
    hasnt 'a.#' admin list bindings
    admin delete exchange --name e
    admin delete queue --name q
    fails admin delete queue --name q
    admin delete queue --name q --idempotently
}

messages() {
    admin declare queue --name q
    has 'routed successfully' admin publish message -k q -m 'hello over there' -p '{"delivery_mode": 2, "headers": {"h": 1}}'
    has 'hello over there' admin get messages -q q -c 1 -a ack_requeue_true
    has 'hello over there' admin get messages -q q -c 1 -a ack_requeue_false
    hasnt 'hello over there' admin get messages -q q -c 1 -a ack_requeue_false
    admin publish message -k q -m 'one more'
    admin purge queue --name q
    hasnt 'one more' admin get messages -q q -c 1 -a ack_requeue_false
}

policies() {
    admin declare policy --name p --pattern '^q' --apply-to queues --priority 1 --definition '{"max-length": 10}'
    admin declare operator_policy --name o --pattern '^q' --apply-to queues --priority 1 --definition '{"max-length": 5}'
    admin declare queue --name q
    has 'max-length: 10' admin list policies
    has 'o' admin list operator_policies
    has 'p' admin policies list_matching_object --name q --type queues
    admin policies patch --name p --definition '{"message-ttl": 5000}'
    has 'message-ttl' admin list policies
    admin policies update_definition --name p --definition-key max-length --new-value 20
    admin policies declare_override --name p --override-name over --definition '{"max-length": 1}'
    has 'over' admin list policies
    admin policies declare_blanket --name blanket --apply-to queues --definition '{"max-length": 100}'
    admin policies delete_definition_keys --name p --definition-keys message-ttl
    admin delete policy --name over
    admin delete policy --name p
    admin delete operator_policy --name o
    hasnt 'over' admin list policies
}

users() {
    local user=$vhost-user
    admin declare user --name "$user" --password secret --tags monitoring
    admin declare permissions --username "$user" --configure '.*' --read '.*' --write '^a'
    has '^a' admin list permissions
    has "$user" admin list users
    fails "${command[@]}" -u "$user" -p secret list users
    "${command[@]}" -u "$user" -p secret show overview >/dev/null
    fails "${command[@]}" -u "$user" -p wrong show overview
    admin delete permissions --username "$user"
    admin delete user --name "$user"
    hasnt "$user" admin list users
    admin passwords salt_and_hash secret >/dev/null
}

limits() {
    local user=$vhost-user
    admin declare user --name "$user" --password secret
    admin declare user_limit --username "$user" --name max-connections --value 3
    admin declare vhost_limit --name max-queues --value 1
    has 'max-connections' admin list user_limits
    has 'max-queues' admin list vhost_limits
    admin declare queue --name one
    fails admin declare queue --name two
    admin delete vhost_limit --name max-queues
    admin delete user_limit --username "$user" --name max-connections
    admin declare queue --name two
    admin delete user --name "$user"
}

definitions() {
    admin declare queue --name kept
    admin definitions export_from_vhost --file "$work/vhost.json"
    admin delete queue --name kept
    admin definitions import_into_vhost --file "$work/vhost.json"
    has 'kept' admin list queues
    admin definitions export --file "$work/all.json"
    admin definitions import --file "$work/all.json"
    has '"kept"' admin definitions export --stdout
}

vhosts() {
    admin vhosts declare --name "$vhost-2" --description 'for a test' --default-queue-type quorum
    has 'for a test' admin list vhosts
    admin vhosts enable_deletion_protection --name "$vhost-2"
    fails admin vhosts delete --name "$vhost-2"
    admin vhosts disable_deletion_protection --name "$vhost-2"
    admin vhosts delete_multiple --name-pattern "^$vhost-2\$" --approve
    hasnt "$vhost-2" admin list vhosts
}

health() {
    admin health_check local_alarms
    admin health_check cluster_wide_alarms
    admin health_check node_is_quorum_critical
    admin health_check port_listener --port "$http_port"
    admin health_check protocol_listener --protocol amqp
    fails admin health_check port_listener --port 1
    fails admin health_check protocol_listener --protocol stomp
}

lists() {
    local what node
    for what in nodes users vhosts permissions connections channels queues exchanges bindings consumers parameters \
        policies operator_policies vhost_limits user_limits feature_flags deprecated_features deprecated_features_in_use; do
        admin list "$what" >/dev/null
    done
    node=$(admin --quiet list nodes | grep -o '[a-z]*@[A-Za-z0-9._-]*' | head -n 1)
    has 'Product' admin show overview
    admin show churn >/dev/null
    admin show memory_breakdown_in_bytes --node "$node" >/dev/null
    admin show memory_breakdown_in_percent --node "$node" >/dev/null
    admin plugins list_all >/dev/null
    admin auth_attempts stats --node "$node" >/dev/null
    admin feature_flags enable_all
    admin rebalance queues
    admin global_parameters set --name "$vhost" --value '{"a": 1}'
    has "$vhost" admin global_parameters list
    admin global_parameters clear --name "$vhost"
}

connections() {
    fails admin connections close --name nosuch
    admin connections close --name nosuch --idempotently
    admin connections close_of_user --username "$vhost" --idempotently
    hasnt "$vhost" admin connections list_of_user --username nosuch
}

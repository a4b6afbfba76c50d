# Results, as they come: a run that is cut off leaves all that it had. Sourced by gpu_check.sh.

start=$SECONDS
failed=0
card="GPU"

# Seconds until the time is up; and a limit that does not go beyond it. An emulated card is slow.
left() { echo $((60 * minutes - (SECONDS - start))); }
within() {
    local most=$1
    [ "$shapes" = real ] || most=$((10 * most))
    echo $((most < $(left) ? most : ($(left) > 1 ? $(left) : 1)))
}

open_results() {
    mkdir -p "$1"
    results=$(cd "$1" && pwd)
    : >"$results/gpu_check.jsonl"
    printf '| card | what | figure | unit | |\n| --- | --- | --: | --- | --- |\n' >"$results/table.md"
}

# row NAME FIGURE [UNIT] [NOTE] [wrong]: a line of the JSON and a row of the table; `wrong` fails the run.
row() {
    local name=$1 figure=$2 unit=${3:-} note ok=true
    note=$(printf '%s' "${4:-}" | tr -c '[:print:]' ' ' | tr -d '"\\|' | tr -s ' ' | cut -c1-300)
    if [ "${5:-}" = wrong ]; then failed=1 ok=false; fi
    local value="\"$figure\""
    [[ $figure =~ ^-?[0-9]+(\.[0-9]+)?$ ]] && value=$figure
    printf '{"seconds":%d,"card":"%s","name":"%s","ok":%s,"value":%s,"unit":"%s","note":"%s"}\n' \
        "$((SECONDS - start))" "$card" "$name" "$ok" "$value" "$unit" "$note" >>"$results/gpu_check.jsonl"
    printf '| %s | %s | %s | %s | %s |\n' "$card" "$name" "$figure" "$unit" "$note" >>"$results/table.md"
    printf '%4d s  %-40s %14s %-10s %s\n' "$((SECONDS - start))" "$name" "$figure" "$unit" "$note"
}

# The ends of all logs as one file, whole at any moment.
keep_logs() {
    local log kept=$work/kept
    rm -rf "$kept"
    mkdir -p "$kept/logs"
    for log in "$logs"/*; do
        [ ! -f "$log" ] || tail -c 1000000 "$log" >"$kept/logs/${log##*/}"
    done
    tar czf "$results/.logs.tgz" -C "$kept" logs && mv "$results/.logs.tgz" "$results/logs.tgz"
}

# The last number of a key in a file of JSON.
number() { grep -o "\"$2\": *[-0-9.e+]*" "$1" | tail -n 1 | sed 's/.*: *//'; }
calc() { awk "BEGIN { printf \"%.${2:-1}f\", $1 }"; }

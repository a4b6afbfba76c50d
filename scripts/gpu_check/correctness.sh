# Kernels, models and runs against the CPU's. Sourced by gpu_check.sh.

# What is wrong and makes figures of speed worthless.
wrong=""

# The groups of tests whose paths begin with a pattern: a file of kernels, the models, ...
groups() { "$work/bin/tests-lib" --list --format terse 2>/dev/null | grep -oE "^($1)::" | sed 's/::$//' | sort -u || true; }

# group NAME SECONDS ARGUMENT...: a process of the library's tests, or the program's where the filter is
# gpu::. Its row has how many passed; status 1 if not all did.
group() {
    local name=$1 seconds=$2 code=0 line passed
    shift 2
    timeout -k 5 "$(within "$seconds")" "$@" >"$logs/${name// /-}.log" 2>&1 || code=$?
    line=$(grep '^test result' "$logs/${name// /-}.log" | tail -n 1 || true)
    passed=$(grep -oE '[0-9]+ passed' <<<"$line" | cut -d' ' -f1 || true)
    if [ "$code" = 0 ] && [ "${passed:-0}" -gt 0 ]; then
        row "$name" "$passed" "passed"
        return
    fi
    row "$name" "${passed:-0}" "passed" "$(why "$code" "$logs/${name// /-}.log")" wrong
    return 1
}

# Why a process of tests failed, in a line.
why() {
    case $1 in
    0) echo "no test ran" ;;
    124 | 137) echo "it did not end in time" ;;
    101) grep -A 1 'panicked at' "$2" | grep -vE 'panicked at|^--' | head -n 3 || true ;;
    *) echo "exit status $1: $(tail -n 1 "$2")" ;;
    esac
}

# A group of the library's tests that failed once more: each launch waited for, so that an error has the
# name of its kernel, then with compute-sanitizer's word on it.
again() {
    local name=$1 filter=$2 log=$logs/${1// /-}
    local -a tests run
    mapfile -t tests < <(sed -nE 's/^test (\S+)( - should panic)? \.\.\. FAILED$/\1/p' "$log.log" | sort -u | head -n 3)
    run=("$work/bin/tests-lib" "$filter")
    [ ${#tests[@]} -eq 0 ] || run=("$work/bin/tests-lib" --exact "${tests[@]}")
    run+=(--test-threads 1)
    CUDA_LAUNCH_BLOCKING=1 timeout -k 5 "$(within 40)" "${run[@]}" >"$log-blocking.log" 2>&1 || true
    row "$name, launches waited for" "$(grep -c '\.\.\. ok$' "$log-blocking.log" || true)" "passed" \
        "$(why 101 "$log-blocking.log")"
    local sanitizer
    for sanitizer in "$(command -v compute-sanitizer || true)" /usr/local/cuda/bin/compute-sanitizer; do
        [ -x "$sanitizer" ] || continue
        timeout -k 5 "$(within 60)" "$sanitizer" --tool memcheck --print-limit 5 "${run[@]}" >"$log-memcheck.log" 2>&1 || true
        row "$name, memcheck" "$(grep -c '^=========' "$log-memcheck.log" || true)" "lines" \
            "$(grep -E '^=========' "$log-memcheck.log" | grep -v COMPUTE-SANITIZER | head -n 4 || true)"
        return
    done
}

check_kernels() {
    local filter name found
    # What is named so tests compilation, which takes no card.
    found=$(groups 'kernels::cuda::[a-z_]+' | grep -v '_tests$' || true)
    for filter in $found; do
        name=${filter##*::}
        group "kernels $name" 60 "$work/bin/tests-lib" "$filter::" --test-threads 1 && continue
        again "kernels $name" "$filter::"
        case $name in attention | linear) wrong+=" $name" ;; esac
    done
    for name in attention linear; do
        [[ $found == *"::$name"* ]] && continue
        row "kernels $name" "0" "passed" "the pack has no test of it" wrong
        wrong+=" $name"
    done
}

check_models() {
    local filter found
    found=$(groups '[a-z_:]+::cuda_tests')
    [ -n "$found" ] || { row "models" "0" "passed" "the pack has no test of them" wrong; wrong+=" models"; }
    for filter in $found; do
        group "models ${filter%::*}" 90 "$work/bin/tests-lib" "$filter::" --test-threads 1 && continue
        again "models ${filter%::*}" "$filter::"
        wrong+=" ${filter%::*}"
    done
}

# Ten steps, runs that repeat, samples. What is off here by rounding alone is for people to judge.
check_runs() {
    group "runs" 120 "$work/bin/tests-test" gpu:: --test-threads 4 || true
    local now
    now=$(find "$work/cache/expo/kernels" -type f | wc -l)
    row "modules of kernels compiled here" $((now - carried)) "" "$carried were brought along"
}

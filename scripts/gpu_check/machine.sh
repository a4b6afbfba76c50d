# The machine: its card, the program's libraries, a directory to work in. Sourced by gpu_check.sh.

mounted="" kept_work="" logs="" memory=""
children=()

# One field of nvidia-smi about the GPU; nothing where it does not say.
ask() { nvidia-smi -i "$gpu" --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null | head -n 1 || true; }

# Opens everything that all parts need; a machine that cannot run the program ends here.
open_machine() {
    local name
    name=$(ask name)
    [ -z "$name" ] || card=${name#NVIDIA }
    memory=$(ask memory.total)
    open_work
    if [ "$(free_mb)" -lt 400 ]; then
        row "the working directory" "too small" "" "$work has $(free_mb) MB; --work names another" wrong
        exit 2
    fi
    logs=$work/logs
    mkdir -p "$work/bin" "$work/cache" "$work/tmp" "$logs"
    for name in expo tests-lib tests-test; do
        unpacked "$name" >"$work/bin/$name"
        chmod +x "$work/bin/$name"
    done
    unpacked fixtures.tar | tar x -C "$work"
    expo=$work/bin/expo
    export EXPO_BIN=$expo EXPO_TEST_GPU=$gpu CARGO_MANIFEST_DIR=$work TMPDIR=$work/tmp
    export XDG_CACHE_HOME=$work/cache HF_HUB_OFFLINE=1 RUST_BACKTRACE=0
    # What the driver compiles is shared by all processes, too.
    export CUDA_CACHE_PATH=$work/driver CUDA_CACHE_MAXSIZE=4294967296
    # Kernels that were compiled when the pack was made; what is not among them is compiled here.
    mkdir -p "$work/cache/expo/kernels"
    [ ! -e "$dir/kernels.tar.xz" ] || unpacked kernels.tar | tar x -C "$work/cache/expo"
    carried=$(find "$work/cache/expo/kernels" -type f | wc -l)
    row "machine" "$(nproc)" "CPUs" "$(awk '/MemTotal/ { printf "%d GiB of memory", $2 / 2 ^ 20 }' /proc/meminfo
    ), $(free_gb) GB free to work in${mounted:+, in memory}; ${memory:-unknown} MiB on the GPU, driver $(ask driver_version)"
    find_libraries
    local said
    if ! said=$("$expo" --version 2>&1); then
        row "the program" "does not start" "" "$(tail -n 1 <<<"$said")" wrong
        exit 2
    fi
    row "the program" "starts" "" "$(tail -n 1 <<<"$said")"
}

close_machine() {
    local code=$? child
    trap - EXIT
    for child in ${children[@]+"${children[@]}"}; do kill "$child" 2>/dev/null || true; done
    wait
    [ ! -d "${logs:-}" ] || keep_logs || true
    if [ -n "$mounted" ]; then umount -l "$work"; fi
    [ -n "$kept_work" ] || rm -rf "${work:?}"
    exit "$code"
}

# A file of the pack, to standard output.
unpacked() {
    if [ -e "$dir/$1" ]; then
        cat "$dir/$1"
    elif command -v xz >/dev/null; then
        xz -dc "$dir/$1.xz"
    else
        python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' \
            "$dir/$1.xz" || fail "neither xz nor python3 unpacks $1.xz"
    fi
}

free_mb() { df -B1000000 --output=avail "$work" | tail -n 1 | tr -d ' '; }
free_gb() { echo $(($(free_mb) / 1000)); }

# Models lie in memory where there is enough of it beside what making them takes, else on the disk. That
# it has no room for a model is said when it is made.
open_work() {
    kept_work=$work
    if [ -n "$work" ]; then
        mkdir -p "$work"
        work=$(cd "$work" && pwd)
        return
    fi
    work=$(mktemp -d)
    [ "$shapes" = real ] || return 0
    local size=8
    if wanted 8b; then size=26; fi
    local available
    available=$(awk '/MemAvailable/ { printf "%d", $2 / 2 ^ 20 }' /proc/meminfo)
    if [ "$available" -ge $((size + 40)) ] && mount -t tmpfs -o "size=${size}g" none "$work" 2>/dev/null; then
        mounted=yes
    fi
}

# The libraries of the program that the loader does not find.
missing() { ldd "$expo" 2>/dev/null | awk '/not found/ { print $1 }' | sort -u || true; }

# Looks for them where toolkits, drivers and Python's wheels put them, then for a while elsewhere.
find_libraries() {
    local name folder found=""
    local -a places=(
        /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib /usr/local/nvidia/lib64
        /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib/wsl/lib /run/opengl-driver/lib
    )
    local -a roots=("${VIRTUAL_ENV:-/none}" "${CONDA_PREFIX:-/none}" /usr /usr/local /opt/* /opt/*/.venv "$HOME" "$HOME/.local")
    for folder in "${roots[@]}"; do
        places+=("$folder"/lib/python3*/site-packages/nvidia/*/lib "$folder"/lib/python3*/dist-packages/nvidia/*/lib)
    done
    for name in $(missing); do
        for folder in "${places[@]}"; do
            if [ -e "$folder/$name" ]; then
                found+=$folder:
                break
            fi
        done
    done
    export LD_LIBRARY_PATH=$found${LD_LIBRARY_PATH:-}
    local -a names=()
    for name in $(missing); do names+=(-o -name "$name"); done
    if [ ${#names[@]} -gt 0 ]; then
        found=$(timeout 20 find /opt /usr /home /root /mnt /lib -maxdepth 12 \( "${names[@]:1}" \) -printf '%h:' 2>/dev/null || true)
        export LD_LIBRARY_PATH=$found$LD_LIBRARY_PATH
    fi
    found=$(missing | paste -sd ' ')
    [ -z "$found" ] && return
    row "libraries" "missing" "" "$found: libcuda comes with NVIDIA's driver, 580 or later, the others with CUDA 13 (a toolkit, or the wheels nvidia-cublas, nvidia-cuda-nvrtc, nvidia-curand, nvidia-cuda-runtime)" wrong
    exit 2
}

// An NCCL that moves bytes between processes of one machine, through shared memory: so much of it as expo calls,
// for communicators that do not block. "Device" memory is that of driver.cpp, which this waits for before it
// reads or writes any: nothing overtakes the stream. Counts that differ between two ranks are an error.

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

const int SUCCESS = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID = 4, WRONG_USE = 5, REMOTE = 6, IN_PROGRESS = 7;
const size_t ROOM = 64 << 10;

struct Id {
    char name[128];
};

struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

// From one rank to another.
struct Slot {
    std::atomic<int> full;
    size_t bytes;
    char data[ROOM];
};

struct Shared {
    std::atomic<int> joined, aborted;
    // (from, to)
    Slot slots[];
};

struct Communicator {
    Shared* shared;
    int rank, size;
    std::atomic<int> state;
};

struct Transfer {
    bool sends;
    char* at;
    size_t bytes;
    int peer;
    Communicator* communicator;
    void* stream;
};

thread_local int depth = 0;
thread_local std::vector<Transfer> group;

// Whether it moved anything; what it is over the end of is an error.
bool move(Communicator* c, Transfer& t, int& code) {
    int from = t.sends ? c->rank : t.peer, to = t.sends ? t.peer : c->rank;
    Slot& slot = c->shared->slots[from * c->size + to];
    size_t bytes = t.bytes < ROOM ? t.bytes : ROOM;
    if (slot.full.load() != !t.sends) return false;
    if (t.sends) {
        memcpy(slot.data, t.at, bytes);
        slot.bytes = bytes;
    } else if (slot.bytes == bytes) {
        memcpy(t.at, slot.data, bytes);
    } else {
        fprintf(stderr, "NCCL: rank %d sent %zu bytes, rank %d expects %zu\n", from, slot.bytes, to, bytes);
        code = WRONG_USE;
    }
    slot.full = t.sends;
    t.at += bytes;
    t.bytes -= bytes;
    return true;
}

void run(Communicator* c, std::vector<Transfer> all) {
    // What is between two ranks keeps its order.
    std::map<std::pair<bool, int>, std::deque<Transfer>> queues;
    for (const Transfer& t : all) queues[{t.sends, t.peer}].push_back(t);
    int code = SUCCESS, idle = 0;
    while (!queues.empty() && code == SUCCESS) {
        bool moved = false;
        for (auto queue = queues.begin(); queue != queues.end();) {
            std::deque<Transfer>& waiting = queue->second;
            moved = move(c, waiting.front(), code) || moved;
            if (waiting.front().bytes == 0) waiting.pop_front();
            queue = waiting.empty() ? queues.erase(queue) : std::next(queue);
        }
        if (c->shared->aborted) code = REMOTE;
        idle = moved ? 0 : idle + 1;
        if (idle > 100) usleep(50);
    }
    c->state = code;
}

int add(bool sends, const void* at, size_t count, int type, int peer, Communicator* c, void* stream) {
    if (depth == 0 || type != 1 || peer < 0 || peer >= c->size || peer == c->rank || count == 0) return INVALID;
    group.push_back({sends, (char*)at, count, peer, c, stream});
    return SUCCESS;
}

}  // namespace

API int ncclGetVersion(int* version) { return *version = 22800, SUCCESS; }
API const char* ncclGetErrorString(int code) {
    switch (code) {
    case SUCCESS: return "no error";
    case CUDA_ERROR: return "unhandled cuda error";
    case INVALID: return "invalid argument";
    case WRONG_USE: return "invalid usage";
    case REMOTE: return "remote process exited or there was a network error";
    default: return "unhandled system error";
    }
}
API const char* ncclGetLastError(void*) { return ""; }

API int ncclGetUniqueId(Id* id) {
    memset(id, 0, sizeof *id);
    const char* address = getenv("NCCL_COMM_ID");
    std::string name = address ? address : std::to_string(getpid()) + "-" + std::to_string((uintptr_t)id);
    snprintf(id->name, sizeof id->name, "/expo-nccl-%s", name.c_str());
    return SUCCESS;
}

API int ncclCommInitRankConfig(Communicator** made, int size, Id id, int rank, Config* config) {
    if (!config || config->magic != 0xcafebeef || config->blocking != 0 || rank >= size) return INVALID;
    size_t bytes = sizeof(Shared) + sizeof(Slot) * size * size;
    int file = shm_open(id.name, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, bytes)) return SYSTEM_ERROR;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return SYSTEM_ERROR;
    Communicator* c = *made = new Communicator{(Shared*)memory, rank, size, {IN_PROGRESS}};
    c->shared->joined++;
    std::thread([=] {
        while (c->shared->joined < size && !c->shared->aborted) usleep(100);
        if (rank == 0) shm_unlink(id.name);
        c->state = c->shared->aborted ? REMOTE : SUCCESS;
    }).detach();
    return IN_PROGRESS;
}

API int ncclGroupStart() { return depth++, SUCCESS; }
API int ncclSend(const void* at, size_t count, int type, int peer, Communicator* c, void* stream) {
    return add(true, at, count, type, peer, c, stream);
}
API int ncclRecv(void* at, size_t count, int type, int peer, Communicator* c, void* stream) {
    return add(false, at, count, type, peer, c, stream);
}
API int ncclGroupEnd() {
    if (--depth > 0 || group.empty()) return SUCCESS;
    std::vector<Transfer> all;
    all.swap(group);
    auto wait = (int (*)(void*))dlsym(RTLD_DEFAULT, "cuStreamSynchronize");
    if (!wait || wait(all[0].stream)) return CUDA_ERROR;
    Communicator* c = all[0].communicator;
    if (c->state == IN_PROGRESS) return WRONG_USE;
    c->state = IN_PROGRESS;
    std::thread(run, c, all).detach();
    return IN_PROGRESS;
}

API int ncclCommGetAsyncError(Communicator* c, int* state) { return *state = c->state, SUCCESS; }
API int ncclCommFinalize(Communicator* c) { return c->state == IN_PROGRESS ? WRONG_USE : SUCCESS; }
API int ncclCommDestroy(Communicator*) { return SUCCESS; }
API int ncclCommAbort(Communicator* c) { return c->shared->aborted = 1, SUCCESS; }

// Memory of the device and of the host, and what the stream was given and has not done yet.
//
// Nothing is done before the host waits, as late as CUDA allows: a copy's source is read, and its
// destination written, when somebody synchronizes. With EXPO_EMULATOR_AT_ONCE set all is done at once.

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#define API extern "C" __attribute__((visibility("default")))

namespace {

const int INVALID = 1, OUT_OF_MEMORY = 2, NO_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719;
const size_t GUARD = 64;

std::mutex lock;
std::map<uint64_t, size_t> allocations, pinned;
size_t in_use = 0, most = 0;
thread_local void* context = nullptr;

// An environment variable of the emulator; 0 where it is not set.
const char* setting(const char* name) { return getenv((std::string("EXPO_EMULATOR_") + name).c_str()); }

uint64_t number(const char* name, uint64_t otherwise) {
    const char* set = setting(name);
    return set ? strtoull(set, nullptr, 10) : otherwise;
}

size_t capacity() { return number("MEMORY", uint64_t(4) << 30); }

int fail(int code, const std::string& what) {
    fprintf(stderr, "emulated driver: %s\n", what.c_str());
    return code;
}

// What must hold of a call that names no stream, which CUDA sends to the context that is bound.
int bound(const char* what) {
    return context ? 0 : fail(NO_CONTEXT, std::string(what) + ": no context is bound to this thread");
}

// The stream: all streams are one. Counts what it was given and what of that is done.
std::mutex turn;
std::deque<std::function<int()>> waiting;
std::atomic<uint64_t> given(0), done(0);
int wrong = 0;

int give(std::function<int()> work) {
    std::lock_guard<std::mutex> held(turn);
    given++;
    if (setting("AT_ONCE")) return done++, work();
    waiting.push_back(std::move(work));
    return 0;
}

// Waits for the first so many: the first of their errors, which nobody was told of.
int wait(uint64_t count) {
    std::lock_guard<std::mutex> held(turn);
    for (; done < count; done++) {
        int code = waiting.front()();
        waiting.pop_front();
        if (!wrong) wrong = code;
    }
    int code = wrong;
    wrong = 0;
    return code;
}

int wait() { return wait(given); }

int allocate(uint64_t* at, size_t bytes) {
    if (bytes == 0) return fail(INVALID, "an allocation of 0 bytes");
    std::lock_guard<std::mutex> held(lock);
    if (in_use + bytes > capacity()) return OUT_OF_MEMORY;
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes + GUARD)) return OUT_OF_MEMORY;
    memset(memory, 0xff, bytes);
    memset((char*)memory + bytes, 0xa5, GUARD);
    *at = (uint64_t)memory;
    allocations[*at] = bytes;
    in_use += bytes;
    if (in_use > most) most = in_use;
    return 0;
}

int release(uint64_t at) {
    size_t bytes;
    {
        std::lock_guard<std::mutex> held(lock);
        auto found = allocations.find(at);
        if (found == allocations.end()) return fail(INVALID, "free of what was not allocated");
        bytes = found->second;
        in_use -= bytes;
        allocations.erase(found);
    }
    return give([=] {
        const unsigned char* guard = (const unsigned char*)at + bytes;
        bool whole = true;
        for (size_t i = 0; i < GUARD; i++) whole = whole && guard[i] == 0xa5;
        free((void*)at);
        return whole ? 0 : fail(LAUNCH_FAILED, "a write behind an allocation");
    });
}

// Whether one of these allocations holds all of it.
bool inside(const std::map<uint64_t, size_t>& all, uint64_t at, size_t bytes) {
    std::lock_guard<std::mutex> held(lock);
    auto found = all.upper_bound(at);
    if (found == all.begin()) return bytes == 0;
    --found;
    return at + bytes <= found->first + found->second;
}

bool inside(uint64_t at, size_t bytes) { return inside(allocations, at, bytes); }

int copy(uint64_t to, uint64_t from, size_t bytes, bool to_device, bool from_device) {
    if (int code = bound("a copy")) return code;
    if (to_device && !inside(to, bytes)) return fail(INVALID, "a copy to no allocation");
    if (from_device && !inside(from, bytes)) return fail(INVALID, "a copy from no allocation");
    return give([=] { return memmove((void*)to, (const void*)from, bytes), 0; });
}

}  // namespace

API int cuMemAlloc_v2(uint64_t* at, size_t bytes) { return allocate(at, bytes); }
API int cuMemAllocAsync(uint64_t* at, size_t bytes, void*) { return allocate(at, bytes); }
API int cuMemFree_v2(uint64_t at) {
    int before = wait(), code = release(at);
    return before ? before : code ? code : wait();
}
API int cuMemFreeAsync(uint64_t at, void*) { return release(at); }
API int cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    *at = malloc(bytes);
    std::lock_guard<std::mutex> held(lock);
    return pinned[(uint64_t)*at] = bytes, 0;
}
API int cuMemFreeHost(void* at) {
    int code = wait();
    std::lock_guard<std::mutex> held(lock);
    pinned.erase((uint64_t)at);
    return free(at), code;
}
API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    if (!inside(pinned, (uint64_t)from, bytes))
        return fail(INVALID, "a copy that nobody waits for from memory that is not page-locked");
    return copy(to, (uint64_t)from, bytes, true, false);
}
API int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    // Who looks before the end sees NaN. Another thread that waits may copy as soon as it is given.
    if (!setting("AT_ONCE")) memset(to, 0xff, bytes);
    return copy((uint64_t)to, from, bytes, false, true);
}
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
    return copy(to, from, bytes, true, true);
}
API int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
    int code = copy(to, (uint64_t)from, bytes, true, false);
    return code ? code : wait();
}
API int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
    int code = copy((uint64_t)to, from, bytes, false, true);
    return code ? code : wait();
}
API int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) {
    int code = copy(to, from, bytes, true, true);
    return code ? code : wait();
}
API int cuMemsetD8Async(uint64_t at, unsigned char byte, size_t count, void*) {
    if (!inside(at, count)) return fail(INVALID, "a set of no allocation");
    return give([=] { return memset((void*)at, byte, count), 0; });
}
API int cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = &allocations, 0; }
API int cuMemPoolSetAttribute(void*, int, void*) { return 0; }
API int cuMemPoolGetAttribute(void*, int attribute, void* value) {
    // The most bytes reserved, and used, so far.
    *(uint64_t*)value = attribute == 6 || attribute == 8 ? most : in_use;
    return 0;
}
API int cuMemPoolTrimTo(void*, size_t) { return 0; }
API int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    *total = capacity();
    *free_bytes = *total - in_use;
    return 0;
}

// A CUDA driver, NVRTC, cuBLAS and cuRAND that compute on the processor: so much of them as expo
// calls. With it the program built for CUDA runs, launch by launch, where no GPU is.
//
// Kernels compile as C++ with src/kernels/emulator/emulator.h (its path in EXPO_EMULATOR), and run before a
// launch returns. With EXPO_EMULATOR_REVERSED set threads run in reverse order: results must not differ.
// Fresh memory is NaN, and a guard behind every allocation is looked at when it is freed. scripts/
// cuda_emulator.sh builds this and says where it is used.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

const int INVALID = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, LAUNCH_FAILED = 719;
const size_t GUARD = 64;
const char* MARK = "// expo emulator ";

std::mutex lock;
std::map<uint64_t, size_t> allocations;
size_t in_use = 0, most = 0;
thread_local void* context = nullptr;

size_t capacity() {
    const char* set = getenv("EXPO_EMULATOR_MEMORY");
    return set ? strtoull(set, nullptr, 10) : size_t(4) << 30;
}

int fail(int code, const std::string& what) {
    fprintf(stderr, "emulated driver: %s\n", what.c_str());
    return code;
}

int allocate(uint64_t* at, size_t bytes) {
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
    if (!at) return 0;
    std::lock_guard<std::mutex> held(lock);
    auto found = allocations.find(at);
    if (found == allocations.end()) return fail(INVALID, "free of what was not allocated");
    const unsigned char* guard = (const unsigned char*)at + found->second;
    for (size_t i = 0; i < GUARD; i++)
        if (guard[i] != 0xa5) return fail(LAUNCH_FAILED, "a write behind an allocation");
    in_use -= found->second;
    allocations.erase(found);
    free((void*)at);
    return 0;
}

// Whether a device's allocation holds all of it.
bool inside(uint64_t at, size_t bytes) {
    std::lock_guard<std::mutex> held(lock);
    auto found = allocations.upper_bound(at);
    if (found == allocations.begin()) return bytes == 0;
    --found;
    return at + bytes <= found->first + found->second;
}

int copy(uint64_t to, uint64_t from, size_t bytes, bool to_device, bool from_device) {
    if (to_device && !inside(to, bytes)) return fail(INVALID, "a copy to no allocation");
    if (from_device && !inside(from, bytes)) return fail(INVALID, "a copy from no allocation");
    memmove((void*)to, (const void*)from, bytes);
    return 0;
}

typedef const char* (*Run)(const unsigned*, unsigned, size_t, void**, int);

struct Function {
    Run run;
    std::string name;
    size_t shared;
};

struct Module {
    void* library;
    std::map<std::string, Function*> functions;
};

struct Program {
    std::string text, image, log;
};

std::string read(const std::string& path) {
    std::ifstream file(path);
    std::stringstream all;
    all << file.rdbuf();
    return all.str();
}

int run(const std::string& command, std::string* said) {
    FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    if (!pipe) return -1;
    char part[4096];
    while (size_t got = fread(part, 1, sizeof part, pipe)) said->append(part, got);
    return pclose(pipe);
}

// Compiles a program to a library, whose path is the image.
int compile(Program* program) {
    const char* emulator = getenv("EXPO_EMULATOR");
    if (!emulator) return program->log = "EXPO_EMULATOR is not set", 6;
    std::string text = read(emulator) + "\n" + program->text;
    const std::string head = "KERNEL(";
    // The first is the macro's own definition, in a branch that is not taken here.
    for (size_t at = 0; (at = program->text.find(head, at)) != std::string::npos;) {
        at += head.size();
        std::string name = program->text.substr(at, program->text.find(')', at) - at);
        size_t line = program->text.rfind('\n', at) + 1;
        bool comment = program->text.compare(line, 2, "//") == 0;
        if (program->text[line] != '#' && !comment) text += "EMULATOR_EXPORT(" + name + ")\n";
    }
    const char* temporary = getenv("TMPDIR");
    std::string folder = std::string(temporary ? temporary : "/tmp") + "/expo-emulated-driver";
    mkdir(folder.c_str(), 0700);
    std::string name = folder + "/" + std::to_string(std::hash<std::string>{}(text));
    // Several processes may compile the same text: each under a name of its own, until it is whole.
    std::string work = name + "." + std::to_string(getpid());
    std::string library = name + ".so";
    if (access(library.c_str(), R_OK)) {
        std::ofstream(work + ".cpp") << text;
        const char* compiler = getenv("CXX");
        std::string command = std::string(compiler ? compiler : "c++")
            + " -std=c++17 -O2 -fPIC -shared -o " + work + ".so " + work + ".cpp";
        if (run(command, &program->log)) return 6;
        rename((work + ".so").c_str(), library.c_str());
        remove((work + ".cpp").c_str());
    }
    program->image = MARK + library + "\n";
    return 0;
}

float widen(const void* values, int type, size_t at) {
    if (type == 0) return ((const float*)values)[at];
    uint32_t bits = (uint32_t)((const uint16_t*)values)[at] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

void put(void* values, int type, size_t at, float x) {
    if (type == 0) {
        ((float*)values)[at] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    ((uint16_t*)values)[at] =
        x != x ? bits >> 16 | 64 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

size_t width(int type) { return type == 0 ? 4 : 2; }

}  // namespace

// The driver.

API int cuInit(unsigned) { return 0; }
API int cuDeviceGetCount(int* count) { return *count = 1, 0; }
API int cuDeviceGet(int* device, int ordinal) {
    if (ordinal != 0) return 101;
    return *device = 0, 0;
}
API int cuDeviceGetName(char* name, int bytes, int) {
    return snprintf(name, bytes, "emulator on the CPU"), 0;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
    case 75: return *value = 9, 0;       // compute capability, major
    case 76: return *value = 0, 0;       // and minor
    case 115: return *value = 1, 0;      // memory pools
    case 16: return *value = 132, 0;     // multiprocessors
    case 97: return *value = 227 << 10, 0;
    default: return *value = 0, 0;
    }
}
API int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = capacity(), 0; }
API int cuDevicePrimaryCtxRetain(void** made, int) { return *made = &lock, 0; }
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuCtxSetCurrent(void* to) { return context = to, 0; }
API int cuCtxGetCurrent(void** current) { return *current = context, 0; }
API int cuCtxSynchronize() { return 0; }
API int cuStreamCreate(void** stream, unsigned) { return *stream = malloc(1), 0; }
API int cuStreamCreateWithPriority(void** stream, unsigned, int) {
    return *stream = malloc(1), 0;
}
API int cuStreamDestroy_v2(void* stream) { return free(stream), 0; }
API int cuStreamSynchronize(void*) { return 0; }
API int cuStreamWaitEvent(void*, void*, unsigned) { return 0; }
API int cuStreamIsCapturing(void*, int* status) { return *status = 0, 0; }
API int cuEventCreate(void** event, unsigned) { return *event = malloc(1), 0; }
API int cuEventDestroy_v2(void* event) { return free(event), 0; }
API int cuEventRecord(void*, void*) { return 0; }
API int cuEventSynchronize(void*) { return 0; }
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
API int cuMemAlloc_v2(uint64_t* at, size_t bytes) { return allocate(at, bytes); }
API int cuMemAllocAsync(uint64_t* at, size_t bytes, void*) { return allocate(at, bytes); }
API int cuMemFree_v2(uint64_t at) { return release(at); }
API int cuMemFreeAsync(uint64_t at, void*) { return release(at); }
API int cuMemHostAlloc(void** at, size_t bytes, unsigned) { return *at = malloc(bytes), 0; }
API int cuMemFreeHost(void* at) { return free(at), 0; }
API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    return copy(to, (uint64_t)from, bytes, true, false);
}
API int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    return copy((uint64_t)to, from, bytes, false, true);
}
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
    return copy(to, from, bytes, true, true);
}
API int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
    return copy(to, (uint64_t)from, bytes, true, false);
}
API int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
    return copy((uint64_t)to, from, bytes, false, true);
}
API int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) {
    return copy(to, from, bytes, true, true);
}
API int cuMemsetD8Async(uint64_t at, unsigned char byte, size_t count, void*) {
    if (!inside(at, count)) return fail(INVALID, "a set of no allocation");
    return memset((void*)at, byte, count), 0;
}
API int cuModuleLoadData(void** module, const void* image) {
    std::string text = (const char*)image;
    if (text.compare(0, strlen(MARK), MARK) != 0)
        return fail(200, "a module that is not of expo's own text: " + text.substr(0, 200));
    std::string path = text.substr(strlen(MARK), text.find('\n') - strlen(MARK));
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return fail(200, dlerror());
    return *module = new Module{library, {}}, 0;
}
API int cuModuleUnload(void*) { return 0; }
API int cuModuleGetFunction(void** function, void* module, const char* name) {
    Module* from = (Module*)module;
    Function*& known = from->functions[name];
    if (!known) {
        Run run = (Run)dlsym(from->library, (std::string("emulator_") + name).c_str());
        if (!run) return fail(NOT_FOUND, std::string("no kernel ") + name);
        known = new Function{run, name, 48 << 10};
    }
    return *function = known, 0;
}
API int cuFuncSetAttribute(void* function, int attribute, int value) {
    if (attribute == 8) {
        if (value > 227 << 10) return INVALID;
        ((Function*)function)->shared = value;
    }
    return 0;
}
API int cuLaunchKernel(
    void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
    unsigned shared, void*, void** values, void**
) {
    Function* kernel = (Function*)function;
    if (y > 65535 || z > 65535 || shared > kernel->shared || threads > 1024)
        return fail(INVALID, kernel->name + ": a launch that no card takes");
    static std::mutex one;
    std::lock_guard<std::mutex> held(one);
    unsigned grid[3] = {x, y, z};
    bool reversed = getenv("EXPO_EMULATOR_REVERSED");
    const char* wrong = kernel->run(grid, threads, shared, values, reversed);
    return wrong ? fail(LAUNCH_FAILED, kernel->name + ": " + wrong) : 0;
}
API int cuGetErrorName(int code, const char** name) {
    static thread_local std::string text;
    text = "CUDA_ERROR_" + std::to_string(code);
    return *name = text.c_str(), 0;
}
API int cuGetErrorString(int code, const char** name) {
    if (code != OUT_OF_MEMORY) return cuGetErrorName(code, name);
    return *name = "out of memory", 0;
}

// NVRTC.

API int nvrtcVersion(int* major, int* minor) { return *major = 0, *minor = 1, 0; }
API int nvrtcCreateProgram(
    void** program, const char* text, const char*, int, const char* const*, const char* const*
) {
    return *program = new Program{text, "", ""}, 0;
}
API int nvrtcCompileProgram(void* program, int, const char* const*) {
    return compile((Program*)program);
}
API int nvrtcGetPTXSize(void* program, size_t* bytes) {
    return *bytes = ((Program*)program)->image.size() + 1, 0;
}
API int nvrtcGetPTX(void* program, char* image) {
    return strcpy(image, ((Program*)program)->image.c_str()), 0;
}
API int nvrtcGetProgramLogSize(void* program, size_t* bytes) {
    return *bytes = ((Program*)program)->log.size() + 1, 0;
}
API int nvrtcGetProgramLog(void* program, char* log) {
    return strcpy(log, ((Program*)program)->log.c_str()), 0;
}
API int nvrtcDestroyProgram(void** program) {
    delete (Program*)*program;
    return *program = nullptr, 0;
}
API const char* nvrtcGetErrorString(int) { return "the kernel's text does not compile"; }

// cuBLAS, by columns.

API int cublasCreate_v2(void** handle) { return *handle = malloc(1), 0; }
API int cublasDestroy_v2(void* handle) { return free(handle), 0; }
API int cublasSetStream_v2(void*, void*) { return 0; }
API int cublasSetMathMode(void*, int) { return 0; }
API int cublasSetWorkspace_v2(void*, void*, size_t) { return 0; }
API int cublasGemmEx(
    void*, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a,
    int type_a, int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c,
    int ldc, int compute, int
) {
    // CUDA_R_32F is 0, CUDA_R_16BF 14; CUBLAS_COMPUTE_32F is 68.
    bool types = (type_a == 0 && type_b == 0 && type_c == 0)
        || (type_a == 14 && type_b == 14 && (type_c == 14 || type_c == 0));
    int rows_a = transpose_a ? k : m, rows_b = transpose_b ? n : k;
    if (!types || compute != 68 || lda < rows_a || ldb < rows_b || ldc < m || lda < 1 || ldb < 1)
        return fail(7, "cublasGemmEx: an argument that cuBLAS refuses");
    auto last = [](int rows, int columns, int leading) {
        return rows && columns ? (size_t)leading * (columns - 1) + rows : 0;
    };
    bool fits = inside((uint64_t)a, last(rows_a, transpose_a ? m : k, lda) * width(type_a))
        && inside((uint64_t)b, last(rows_b, transpose_b ? k : n, ldb) * width(type_b))
        && inside((uint64_t)c, last(m, n, ldc) * width(type_c));
    if (!fits) return fail(7, "cublasGemmEx: a matrix outside its allocation");
    float scale = *(const float*)alpha, keep = *(const float*)beta;
    std::vector<float> left((size_t)m * k), column(m);
    for (int i = 0; i < k; i++)
        for (int row = 0; row < m; row++)
            left[(size_t)i * m + row] =
                widen(a, type_a, transpose_a ? (size_t)row * lda + i : (size_t)i * lda + row);
    for (int j = 0; j < n; j++) {
        std::fill(column.begin(), column.end(), 0.0f);
        for (int i = 0; i < k; i++) {
            float x = widen(b, type_b, transpose_b ? (size_t)i * ldb + j : (size_t)j * ldb + i);
            const float* from = &left[(size_t)i * m];
            for (int row = 0; row < m; row++) column[row] += from[row] * x;
        }
        for (int row = 0; row < m; row++) {
            size_t at = (size_t)j * ldc + row;
            float before = keep != 0 ? keep * widen(c, type_c, at) : 0;
            put(c, type_c, at, scale * column[row] + before);
        }
    }
    return 0;
}

// cuRAND, which candle makes and expo never asks.

API int curandCreateGenerator(void** generator, int) { return *generator = malloc(1), 0; }
API int curandDestroyGenerator(void* generator) { return free(generator), 0; }
API int curandSetStream(void*, void*) { return 0; }
API int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return 0; }
API int curandSetGeneratorOffset(void*, unsigned long long) { return 0; }

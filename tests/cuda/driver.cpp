// A CUDA driver, NVRTC, cuBLAS and cuRAND that compute on the CPU: so much of them as expo calls. With it
// the program built for CUDA runs, launch by launch, where no GPU is.
//
// Kernels compile as C++ with src/kernels/emulator/emulator.h (its path in EXPO_EMULATOR). Nothing runs
// before the host waits (memory.h). Fresh memory is NaN, and a guard behind every allocation is looked at
// when it is freed. Modules that are not of expo's own text are refused. scripts/cuda_emulator.sh builds
// this and says where it is used. What its environment may set, EXPO_EMULATOR_ in front:
//   REVERSED      threads run in reverse order: results must not differ
//   AT_ONCE       everything runs before its call returns
//   GPUS          how many there are, 1; all of them are the host's memory
//   MEMORY        bytes of the device
//   CARD          its compute capability, 90 for 9.0; NVRTC knows 80, 86, 89 and 90
//   DRIVER        the CUDA version that the driver is for, 13000 for 13.0
//   NVRTC         NVRTC's minor version
//   REFUSES       "cubin" or "ptx": what the driver does not load

#include "memory.h"

#include <dlfcn.h>

#include "cublas.h"
#include "nvrtc.h"

namespace {

typedef const char* (*Run)(const unsigned*, unsigned, size_t, void**, int);

struct Function {
    Run run;
    // Bytes of each parameter, and 0 behind them.
    const size_t* sizes;
    std::string name;
    size_t shared;
};

struct Module {
    void* library;
    std::map<std::string, Function*> functions;
};

struct Event {
    uint64_t given;
};

}  // namespace

API int cuInit(unsigned) { return 0; }
API int cuDriverGetVersion(int* version) { return *version = number("DRIVER", 13000), 0; }
API int cuDeviceGetCount(int* count) { return *count = number("GPUS", 1), 0; }
API int cuDeviceGet(int* device, int ordinal) {
    if (ordinal < 0 || (uint64_t)ordinal >= number("GPUS", 1)) return 101;
    return *device = ordinal, 0;
}
API int cuDeviceGetName(char* name, int bytes, int) {
    return snprintf(name, bytes, "emulator on the CPU"), 0;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
    case 75: return *value = number("CARD", 90) / 10, 0;  // compute capability, major
    case 76: return *value = number("CARD", 90) % 10, 0;  // and minor
    case 115: return *value = 1, 0;                       // memory pools
    case 16: return *value = 132, 0;                      // multiprocessors
    case 97: return *value = 227 << 10, 0;
    default: return *value = 0, 0;
    }
}
API int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = capacity(), 0; }
API int cuDevicePrimaryCtxRetain(void** made, int) { return *made = &lock, 0; }
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuCtxSetCurrent(void* to) { return context = to, 0; }
API int cuCtxGetCurrent(void** current) { return *current = context, 0; }
API int cuCtxSynchronize() { return wait(); }
API int cuStreamCreate(void** stream, unsigned) { return *stream = malloc(1), 0; }
API int cuStreamCreateWithPriority(void** stream, unsigned, int) {
    return *stream = malloc(1), 0;
}
API int cuStreamDestroy_v2(void* stream) { return free(stream), 0; }
API int cuStreamSynchronize(void*) { return wait(); }
API int cuStreamQuery(void*) { return wait(); }
API int cuStreamWaitEvent(void*, void*, unsigned) { return 0; }
API int cuStreamIsCapturing(void*, int* status) { return *status = 0, 0; }
API int cuEventCreate(void** event, unsigned) { return *event = new Event{0}, 0; }
API int cuEventDestroy_v2(void* event) { return delete (Event*)event, 0; }
API int cuEventRecord(void* event, void*) { return ((Event*)event)->given = given, 0; }
API int cuEventSynchronize(void* event) { return wait(((Event*)event)->given); }
API int cuModuleLoadData(void** module, const void* image) {
    if (int code = bound("cuModuleLoadData")) return code;
    std::string text = (const char*)image, mark = MARK;
    if (text.compare(0, mark.size(), mark) != 0)
        return fail(200, "a module that is not of expo's own text: " + text.substr(0, 200));
    size_t end = text.find('\n');
    std::string kind = text.substr(mark.size(), end - mark.size());
    const char* refuses = setting("REFUSES");
    if (refuses && kind == refuses) return kind == "ptx" ? 222 : 209;
    std::string path = text.substr(end + 1, text.find('\n', end + 1) - end - 1);
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return fail(200, dlerror());
    return *module = new Module{library, {}}, 0;
}
API int cuModuleUnload(void*) { return 0; }
API int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (int code = bound("cuModuleGetFunction")) return code;
    Module* from = (Module*)module;
    std::lock_guard<std::mutex> held(lock);
    Function*& known = from->functions[name];
    if (!known) {
        Run run = (Run)dlsym(from->library, (std::string("emulator_") + name).c_str());
        void* sizes = dlsym(from->library, (std::string("emulator_sizes_") + name).c_str());
        if (!run || !sizes) return fail(NOT_FOUND, std::string("no kernel ") + name);
        known = new Function{run, ((const size_t* (*)())sizes)(), name, 48 << 10};
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
    // Its arguments are read now, as by CUDA.
    std::vector<std::string> arguments;
    for (const size_t* bytes = kernel->sizes; *bytes; bytes++)
        arguments.emplace_back((const char*)values[arguments.size()], *bytes);
    return give([=]() mutable {
        unsigned grid[3] = {x, y, z};
        std::vector<void*> places;
        for (std::string& argument : arguments) places.push_back(&argument[0]);
        const char* wrong = kernel->run(grid, threads, shared, places.data(), setting("REVERSED") != nullptr);
        return wrong ? fail(LAUNCH_FAILED, kernel->name + ": " + wrong) : 0;
    });
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

// cuRAND, which candle makes and expo never asks.

API int curandCreateGenerator(void** generator, int) { return *generator = malloc(1), 0; }
API int curandDestroyGenerator(void* generator) { return free(generator), 0; }
API int curandSetStream(void*, void*) { return 0; }
API int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return 0; }
API int curandSetGeneratorOffset(void*, unsigned long long) { return 0; }

// NVRTC: a text compiles as C++ to a library, and its image, machine code or PTX, names that.

#include <fstream>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace {

const char* MARK = "// expo emulator, ";

struct Program {
    std::string text, kind, image, log;
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

// Compiles a program to a library, whose path is in the image.
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
    // Several processes, and threads, may compile the same text: each under a name of its own, until it is
    // whole.
    std::string work = name + "." + std::to_string(getpid()) + "." + std::to_string((uint64_t)program);
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
    program->image = MARK + program->kind + "\n" + library + "\n";
    return 0;
}

int size(const Program* program, const char* kind, size_t* bytes) {
    return *bytes = program->kind == kind ? program->image.size() + 1 : 0, 0;
}

const int ARCHITECTURES[] = {80, 86, 89, 90};

}  // namespace

// A minor version that NVIDIA never had: what it compiles is in nobody's cache.
API int nvrtcVersion(int* major, int* minor) {
    return *major = 13, *minor = number("NVRTC", 99), 0;
}
API int nvrtcGetNumSupportedArchs(int* count) {
    return *count = sizeof ARCHITECTURES / sizeof *ARCHITECTURES, 0;
}
API int nvrtcGetSupportedArchs(int* all) {
    return memcpy(all, ARCHITECTURES, sizeof ARCHITECTURES), 0;
}
API int nvrtcCreateProgram(
    void** program, const char* text, const char*, int, const char* const*, const char* const*
) {
    return *program = new Program{text, "", "", ""}, 0;
}
API int nvrtcCompileProgram(void* program, int count, const char* const* options) {
    const std::string flag = "--gpu-architecture=";
    Program* own = (Program*)program;
    for (int i = 0; i < count; i++) {
        std::string option = options[i];
        if (option.compare(0, flag.size(), flag) == 0)
            own->kind = option.compare(flag.size(), 3, "sm_") == 0 ? "cubin" : "ptx";
    }
    return compile(own);
}
API int nvrtcGetCUBINSize(void* program, size_t* bytes) {
    return size((Program*)program, "cubin", bytes);
}
API int nvrtcGetCUBIN(void* program, char* image) {
    return strcpy(image, ((Program*)program)->image.c_str()), 0;
}
API int nvrtcGetPTXSize(void* program, size_t* bytes) {
    return size((Program*)program, "ptx", bytes);
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

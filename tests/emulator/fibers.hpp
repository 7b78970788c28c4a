// One CUDA thread is one fiber: a stack of its own on the one OS thread, switched by hand. The sanitizers are told
// of every switch; for TSan a switch is "no synchronisation", so that only barriers order memory, as on the device.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMU_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreReadsBegin(const char*, int);
extern "C" void AnnotateIgnoreReadsEnd(const char*, int);
extern "C" void AnnotateIgnoreWritesBegin(const char*, int);
extern "C" void AnnotateIgnoreWritesEnd(const char*, int);
#define EMU_TSAN 1
#define EMU_PRIVATE __attribute__((no_sanitize("thread"), noinline))  // the emulator's own state is no memory traffic of the kernel
#else
#define EMU_PRIVATE
#endif

namespace emu {

[[noreturn]] inline void die(const char* format, ...) {
    va_list args;
    va_start(args, format);
    fputs("cuda emulator: error: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

#if defined(__x86_64__)
// Saves the callee-saved registers and changes stacks: fifteen instructions instead of ucontext's system calls.
struct Context { void* stack_pointer = nullptr; };
extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.weak emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emu_switch,.-emu_switch
)");
inline void make_context(Context& context, char* base, size_t size, void (*entry)()) {
    auto top = reinterpret_cast<uintptr_t>(base + size) & ~uintptr_t(15);
    void** slot = reinterpret_cast<void**>(top);
    *--slot = nullptr;  // so that at entry rsp % 16 == 8, as after a call
    *--slot = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--slot = nullptr;
    context.stack_pointer = slot;
}
EMU_PRIVATE inline void swap_context(Context& from, Context& to) { emu_switch(&from.stack_pointer, to.stack_pointer); }
#else
}  // namespace emu
#include <ucontext.h>
namespace emu {
struct Context { ucontext_t state; };
inline void make_context(Context& context, char* base, size_t size, void (*entry)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = base;
    context.state.uc_stack.ss_size = size;
    context.state.uc_link = nullptr;
    makecontext(&context.state, entry, 0);
}
EMU_PRIVATE inline void swap_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
#endif

constexpr size_t kStackBytes = 256 << 10;

// A stack above one page that may not be touched: an overflow is a fault, not a corruption.
inline char* make_stack() {
    void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) die("no memory for the stacks");
    mprotect(stack, 4096, PROT_NONE);
    return static_cast<char*>(stack);
}

inline void release(void* sync) {
    (void)sync;
#ifdef EMU_TSAN
    __tsan_release(sync);
#endif
}
inline void acquire(void* sync) {
    (void)sync;
#ifdef EMU_TSAN
    __tsan_acquire(sync);
#endif
}

// As EMU_PRIVATE, for code that calls into templates.
struct Quiet {
#ifdef EMU_TSAN
    Quiet() { AnnotateIgnoreReadsBegin(__FILE__, 0); AnnotateIgnoreWritesBegin(__FILE__, 0); }
    ~Quiet() { AnnotateIgnoreReadsEnd(__FILE__, 0); AnnotateIgnoreWritesEnd(__FILE__, 0); }
#else
    Quiet() {}
    ~Quiet() {}
#endif
};

}  // namespace emu

// Runs the threads of a threadgroup as fibers of one OS thread: a fiber runs until a barrier, then the next one does.
// A fiber whose kernel thread is finished takes the next thread that has not begun, so a kernel without barriers uses
// one fiber and costs a function call per thread.
#define MPS_MAX_THREADS 1024
#define MPS_SIMD 32
#define MPS_THREADGROUP_BYTES 32768
// Not a multiple of the page: the tops of all stacks must not fall into one set of the cache
#define MPS_STACK_BYTES (64 * 1024 + 9 * 64)

enum mps_fault_kind {
    MPS_NO_FAULT,
    MPS_DIVERGENT_BARRIER,
    MPS_THREADGROUP_SIZE,
    MPS_LANE,
    MPS_OUT_OF_BOUNDS,
    MPS_MISALIGNED,
    MPS_UNINITIALISED,
    MPS_RACE,
    MPS_RACE_BETWEEN_GROUPS,
};

// These three are mirrored by host.py
struct mps_fault {
    int kind, buffer;   // buffer: index of the argument, -1 for threadgroup memory or none
    const char* array;  // name of a threadgroup array
    mps_long index;     // in elements of the type that was accessed
    int thread, other;  // other: the second thread of a race, line: of a barrier
    int line, write;
    uint group[3];
};
struct mps_argument { void* data; mps_long bytes, writable; };
struct mps_launch {
    const mps_argument* arguments;
    uint threads[3], group[3];
    void* arena;
    ulong seed;
    mps_fault* fault;
    mps_long argument_count;
    mps_long* counters;  // null, or what a checked launch counts: counters.py
};

struct mps_ids {
    uint3 thread_position_in_threadgroup, threadgroup_position_in_grid, thread_position_in_grid;
    uint3 threads_per_threadgroup, threadgroups_per_grid;
    uint thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
};

struct mps_waiting { int count, line; ushort members[MPS_MAX_THREADS]; };
struct mps_simd { int size, count, line; ushort members[MPS_SIMD]; };
struct mps_fiber { void* context; char* stack; uint threadgroup_used, shuffles; bool begun; };
typedef void (*mps_body)(const mps_launch*, const mps_ids&);

struct mps_group {
    alignas(64) char memory[MPS_THREADGROUP_BYTES];
    alignas(16) char slots[MPS_MAX_THREADS / MPS_SIMD][2][MPS_SIMD][16];  // two sets: a shuffle needs one barrier, not two
    mps_fiber fibers[MPS_MAX_THREADS];
    ushort ready[MPS_MAX_THREADS];  // ring of threads that may run
    mps_waiting waiting;
    mps_simd simds[MPS_MAX_THREADS / MPS_SIMD];
    char* free_stacks[MPS_MAX_THREADS];
    uint size, running, finished, head, ready_count, stacks_used, free_count;
    char* stacks;
    void* main_context;
    uint3 position, extent, count;
    const mps_launch* launch;
    mps_body body;
    struct mps_checks* checks;
    bool shuffled;
    ulong random;
};

static thread_local mps_group* mps_current;

// --- context switch -------------------------------------------------------------------------------------------------
// mps_switch saves the callee-saved registers and the stack pointer, and continues where `to` was saved.
#if defined(__x86_64__) && !defined(MPS_UCONTEXT)
extern "C" __attribute__((visibility("hidden"))) void mps_switch(void** save, void* to);
__asm__(
    ".text\n.p2align 4\n"
#if defined(__APPLE__)
    "_mps_switch:\n"
#else
    "mps_switch:\n"
#endif
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
    "popq %rcx\njmp *%rcx\n");
static void* mps_make_context(char* stack, void (*entry)()) {
    void** top = (void**)((mps_size)(stack + MPS_STACK_BYTES) & ~(mps_size)15) - 2;
    top[0] = (void*)entry;
    top[1] = nullptr;  // where a return address would be
    for (int i = 1; i <= 6; ++i) top[-i] = nullptr;
    return top - 6;
}
#elif defined(__aarch64__) && !defined(MPS_UCONTEXT)
extern "C" __attribute__((visibility("hidden"))) void mps_switch(void** save, void* to);
__asm__(
    ".text\n.p2align 2\n"
#if defined(__APPLE__)
    "_mps_switch:\n"
#else
    "mps_switch:\n"
#endif
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\nstp x25, x26, [sp, #48]\n"
    "stp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\nstp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\n"
    "stp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
    "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\nldp x25, x26, [sp, #48]\n"
    "ldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\nldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\n"
    "ldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\nret\n");
static void* mps_make_context(char* stack, void (*entry)()) {
    void** top = (void**)((mps_size)(stack + MPS_STACK_BYTES) & ~(mps_size)15) - 20;
    for (int i = 0; i < 20; ++i) top[i] = nullptr;
    top[11] = (void*)entry;
    return top;
}
#else
#include <ucontext.h>
static void mps_switch(void** save, void* to) {
    ucontext_t here;  // on the stack of the fiber that waits, so it lives as long as it is needed
    *save = &here;
    swapcontext(&here, (ucontext_t*)to);
}
static void* mps_make_context(char* stack, void (*entry)()) {
    ucontext_t* context = (ucontext_t*)(((mps_size)stack + 63) & ~(mps_size)63);
    getcontext(context);
    context->uc_stack.ss_sp = (char*)(context + 1) + 64;
    context->uc_stack.ss_size = (mps_size)(stack + MPS_STACK_BYTES - (char*)context->uc_stack.ss_sp);
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return context;
}
#endif

// --- faults -----------------------------------------------------------------------------------------------------------
// Leaves the group for good: its fibers are abandoned, they own nothing.
static __attribute__((noinline, noreturn, cold)) void mps_raise(mps_group* g, const mps_fault& fault) {
    *g->launch->fault = fault;
    g->launch->fault->thread = int(g->running);
    g->launch->fault->group[0] = g->position.x;
    g->launch->fault->group[1] = g->position.y;
    g->launch->fault->group[2] = g->position.z;
    void* nowhere;
    mps_switch(&nowhere, g->main_context);
    __builtin_unreachable();
}
static __attribute__((noinline, noreturn, cold)) void mps_raise(mps_group* g, mps_fault_kind kind, mps_long index = 0, int line = 0) {
    mps_raise(g, mps_fault{kind, -1, nullptr, index, 0, -1, line, 0, {}});
}

// --- scheduler --------------------------------------------------------------------------------------------------------
static inline uint mps_random(mps_group* g, uint below) {
    g->random ^= g->random << 13;
    g->random ^= g->random >> 7;
    g->random ^= g->random << 17;
    return uint((g->random >> 32) % below);
}

static inline void mps_make_ready(mps_group* g, uint thread) {
    uint tail = (g->head + g->ready_count++) % MPS_MAX_THREADS;
    g->ready[tail] = ushort(thread);
}

static inline int mps_pop_ready(mps_group* g) {
    if (g->ready_count == 0) return -1;
    if (g->shuffled) {
        uint pick = (g->head + mps_random(g, g->ready_count)) % MPS_MAX_THREADS;
        ushort chosen = g->ready[pick];
        g->ready[pick] = g->ready[g->head];
        g->ready[g->head] = chosen;
    }
    int thread = g->ready[g->head];
    g->head = (g->head + 1) % MPS_MAX_THREADS;
    --g->ready_count;
    return thread;
}

// Somebody waits and nobody can run: a barrier that not every thread of the group or simdgroup has reached.
static __attribute__((noinline, noreturn, cold)) void mps_raise_divergence(mps_group* g) {
    int line = g->waiting.line;
    uint thread = g->waiting.count ? g->waiting.members[0] : 0;
    for (const mps_simd& simd : g->simds) {
        if (g->waiting.count == 0 && simd.count > 0) line = simd.line, thread = simd.members[0];
    }
    g->running = thread;
    mps_raise(g, MPS_DIVERGENT_BARRIER, 0, line);
}

static void mps_run_thread(mps_group* g, uint thread) {
    mps_ids at;
    uint width = g->extent.x, height = g->extent.y;
    uint3 full = {g->launch->group[0], g->launch->group[1], g->launch->group[2]};
    uint3 local = {thread % width, thread / width % height, thread / width / height};
    at.thread_position_in_threadgroup = local;
    at.threadgroup_position_in_grid = g->position;
    at.thread_position_in_grid = {g->position.x * full.x + local.x, g->position.y * full.y + local.y,
                                  g->position.z * full.z + local.z};
    at.threads_per_threadgroup = g->extent;
    at.threadgroups_per_grid = g->count;
    at.thread_index_in_threadgroup = thread;
    at.thread_index_in_simdgroup = thread % MPS_SIMD;
    at.simdgroup_index_in_threadgroup = thread / MPS_SIMD;
    g->fibers[thread].begun = true;
    g->body(g->launch, at);
}

static void mps_fiber_main() {
    mps_group* g = mps_current;
    for (;;) {
        char* stack = g->fibers[g->running].stack;
        mps_run_thread(g, g->running);
        ++g->finished;
        int next = mps_pop_ready(g);
        if (next < 0) {
            if (g->finished < g->size) mps_raise_divergence(g);
            void* nowhere;
            mps_switch(&nowhere, g->main_context);
        }
        g->running = uint(next);
        if (!g->fibers[next].begun) {
            g->fibers[next].stack = stack;
            continue;
        }
        g->free_stacks[g->free_count++] = stack;
        void* nowhere;
        mps_switch(&nowhere, g->fibers[next].context);
    }
}

static inline void* mps_context_of(mps_group* g, uint thread) {
    mps_fiber& fiber = g->fibers[thread];
    if (fiber.begun) return fiber.context;
    fiber.stack = g->free_count ? g->free_stacks[--g->free_count] : g->stacks + mps_size(g->stacks_used++) * MPS_STACK_BYTES;
    return mps_make_context(fiber.stack, mps_fiber_main);
}

// Lets other threads run until one of them makes this one ready again.
static void mps_wait(mps_group* g) {
    uint self = g->running;
    int next = mps_pop_ready(g);
    if (next < 0) mps_raise_divergence(g);
    void* to = mps_context_of(g, uint(next));
    g->running = uint(next);
    mps_switch(&g->fibers[self].context, to);
}

// Both barriers: the last thread to arrive wakes the others and goes on. True for that one.
template <class Waiting>
static inline bool mps_arrive(mps_group* g, Waiting& waiting, uint size, int line) {
    // threads at different barriers do not meet: Metal leaves such a kernel undefined
    if (waiting.count > 0 && waiting.line != line) mps_raise(g, MPS_DIVERGENT_BARRIER, 0, line);
    waiting.line = line;
    if (uint(waiting.count) + 1 == size) {
        for (int i = 0; i < waiting.count; ++i) mps_make_ready(g, waiting.members[i]);
        waiting.count = 0;
        return true;
    }
    waiting.members[waiting.count++] = ushort(g->running);
    return false;
}

static __attribute__((noinline)) void mps_simd_meet(mps_group* g, int line) {
    mps_simd& simd = g->simds[g->running / MPS_SIMD];
    if (!mps_arrive(g, simd, uint(simd.size), line)) mps_wait(g);
}

// Every thread of the group runs to its end. False when there was a fault.
static bool mps_run_group(mps_group* g) {
    g->size = g->extent.x * g->extent.y * g->extent.z;
    g->finished = g->head = g->ready_count = g->stacks_used = g->free_count = 0;
    g->waiting.count = 0;
    for (uint i = 0; i * MPS_SIMD < g->size; ++i) {
        uint rest = g->size - i * MPS_SIMD;
        g->simds[i].size = int(rest < MPS_SIMD ? rest : MPS_SIMD);
        g->simds[i].count = 0;
    }
    for (uint i = 0; i < g->size; ++i) {
        mps_fiber& fiber = g->fibers[i];
        fiber.threadgroup_used = fiber.shuffles = 0;
        fiber.begun = false;
        mps_make_ready(g, i);
    }
    int first = mps_pop_ready(g);
    g->running = uint(first);
    mps_switch(&g->main_context, mps_context_of(g, uint(first)));
    return g->launch->fault->kind == MPS_NO_FAULT;
}

// The groups of a launch, in order or, `shuffled`, in an order that the seed decides. `before` runs ahead of each.
template <class Before>
static void mps_run_groups(const mps_launch* launch, mps_body body, bool shuffled, Before before) {
    mps_group* g = (mps_group*)launch->arena;
    g->stacks = (char*)(g + 1);
    g->launch = launch;
    g->body = body;
    g->shuffled = shuffled;
    g->random = launch->seed * 0x9e3779b97f4a7c15u | 1;
    const uint *t = launch->threads, *s = launch->group;
    g->count = {(t[0] + s[0] - 1) / s[0], (t[1] + s[1] - 1) / s[1], (t[2] + s[2] - 1) / s[2]};
    ulong total = ulong(g->count.x) * g->count.y * g->count.z;
    // i * step + start visits every group once when step and total have no common divisor
    ulong start = 0, step = 1;
    if (shuffled && total > 1) {
        start = mps_random(g, uint(total < 0xffffffff ? total : 0xffffffff));
        for (step = 1 + mps_random(g, uint(total < 0xfffff ? total : 0xfffff));; ++step) {
            ulong a = total, b = step;
            while (b) { ulong rest = a % b; a = b; b = rest; }
            if (a == 1) break;
        }
    }
    mps_group* outer = mps_current;
    mps_current = g;
    for (ulong i = 0; i < total; ++i) {
        ulong n = (i * step + start) % total;
        g->position = {uint(n % g->count.x), uint(n / g->count.x % g->count.y), uint(n / g->count.x / g->count.y)};
        uint3 from = {g->position.x * s[0], g->position.y * s[1], g->position.z * s[2]};
        g->extent = {min(s[0], t[0] - from.x), min(s[1], t[1] - from.y), min(s[2], t[2] - from.z)};
        before(g);
        if (!mps_run_group(g)) break;
    }
    mps_current = outer;
}

extern "C" __attribute__((visibility("default"))) mps_size mps_arena_bytes(mps_size group) {
    return sizeof(mps_group) + group * MPS_STACK_BYTES;
}

// --- what kernels call ------------------------------------------------------------------------------------------------
// The offset of a threadgroup array: every thread meets the declarations in the same order.
static inline uint mps_take_threadgroup(mps_group* g, mps_size bytes) {
    uint at = g->fibers[g->running].threadgroup_used;
    mps_size end = at + ((bytes + 15) & ~mps_size(15));
    if (end > MPS_THREADGROUP_BYTES) mps_raise(g, MPS_THREADGROUP_SIZE, mps_long(end));
    g->fibers[g->running].threadgroup_used = uint(end);
    return at;
}

// Offers a value to the simdgroup; the lanes' values stay readable until the next but one exchange.
template <class T>
static inline const char (*mps_offer(mps_group* g, T value, int line))[16] {
    static_assert(sizeof(T) <= 16, "simd functions take scalars and vectors");
    uint self = g->running;
    char(*slots)[16] = g->slots[self / MPS_SIMD][g->fibers[self].shuffles++ & 1];
    __builtin_memcpy(slots[self % MPS_SIMD], &value, sizeof value);
    mps_simd_meet(g, line);
    return slots;
}

template <class T>
static inline T mps_lane(const char (*slots)[16], uint lane) {
    T value;
    __builtin_memcpy(&value, slots[lane], sizeof value);
    return value;
}

template <class T>
static T mps_shuffle(T value, uint lane, bool relative, int line) {
    mps_group* g = mps_current;
    const char(*slots)[16] = mps_offer(g, value, line);
    if (relative) lane ^= g->running % MPS_SIMD;
    if (lane >= uint(g->simds[g->running / MPS_SIMD].size)) mps_raise(g, MPS_LANE, lane, line);
    return mps_lane<T>(slots, lane);
}

template <class T>
static T mps_reduce(T value, bool largest, int line) {
    mps_group* g = mps_current;
    const char(*slots)[16] = mps_offer(g, value, line);
    T result = mps_lane<T>(slots, 0);
    for (uint lane = 1; lane < uint(g->simds[g->running / MPS_SIMD].size); ++lane) {
        T other = mps_lane<T>(slots, lane);
        result = largest ? (result < other ? other : result) : result + other;
    }
    return result;
}

#define simd_shuffle(value, lane) mps_shuffle(mps_value(value), uint(lane), false, __LINE__)
#define simd_shuffle_xor(value, mask) mps_shuffle(mps_value(value), uint(mask), true, __LINE__)
#define simd_sum(value) mps_reduce(mps_value(value), false, __LINE__)
#define simd_max(value) mps_reduce(mps_value(value), true, __LINE__)

// Checks every access that a kernel makes through a pointer or an array.
// A pointer knows the region (argument or array) that it came from. Each 4-byte word of a region that can be
// written remembers who touched it and when, counted in barriers; two threads that touch one word, one of them writing,
// need a barrier between them that covers both threads and that kind of memory.

// The last accesses to a word. 0 is nobody, MPS_MANY several.
struct mps_word {
    uint write_group, read_group;    // position of the group in the grid + 1
    ushort writer, reader;           // thread + 1
    ushort read_simd;                // simdgroup + 1
    uint write_at, read_at;          // threadgroup barriers passed at that time
    uint write_simd_at, read_simd_at;  // simdgroup barriers
};
static const ushort MPS_MANY = 0xffff;
static const uint MPS_MANY_GROUPS = 0xffffffffu;

struct mps_region {
    const char *begin, *end;
    mps_group* group;
    mps_word* words;         // null for memory that nobody writes
    const char* words_begin;
    const char* name;
    int buffer;
    bool local;  // threadgroup memory
    mps_long* counts;  // null where nothing is counted, else the six numbers of counters.py
    uint* stamps;      // for each word, which group read it last and which one wrote it last, position + 1
};

#define MPS_MAX_ARRAYS 64
struct mps_checks {
    mps_region buffers[31], arrays[MPS_MAX_ARRAYS];
    uint array_count;
    // barriers passed so far, [0] those for threadgroup memory, [1] those for device memory
    uint barriers[2], simd_barriers[MPS_MAX_THREADS / MPS_SIMD][2];
    uint group_id;
    mps_word local_words[MPS_THREADGROUP_BYTES / 4];
};

static __attribute__((noinline, noreturn, cold)) void mps_raise_access(
    const mps_region* r, mps_fault_kind kind, const char* p, uint size, bool write, int other) {
    mps_long offset = p - r->begin;
    mps_long index = offset < 0 ? -((-offset + size - 1) / size) : offset / size;
    mps_raise(r->group, mps_fault{kind, r->buffer, r->name, index, 0, other, 0, write, {}});
}

// Bytes by all groups, each word once per group; by the launch, each word once; as often as they were asked for.
static void mps_count(const mps_region* r, const char* p, uint size, bool write) {
    r->counts[4 + write] += size;
    if (!r->stamps) return;
    uint me = r->group->checks->group_id;
    const char* first = (const char*)((mps_size)r->begin & ~mps_size(3));
    for (mps_long word = (p - first) / 4; word <= (p + size - 1 - first) / 4; ++word) {
        uint* stamp = r->stamps + 2 * word + write;
        if (*stamp == me) continue;
        r->counts[write] += 4;
        if (*stamp == 0) r->counts[2 + write] += 4;
        *stamp = me;
    }
}

static __attribute__((noinline)) void mps_check(const mps_region* r, const char* p, uint size, uint alignment, bool write) {
    if (!r) return;  // a constant of the program
    mps_long offset = p - r->begin;
    if (offset < 0 || offset + mps_long(size) > r->end - r->begin) mps_raise_access(r, MPS_OUT_OF_BOUNDS, p, size, write, -1);
    if ((mps_size)p % alignment) mps_raise_access(r, MPS_MISALIGNED, p, size, write, -1);
    if (r->counts) mps_count(r, p, size, write);
    if (!r->words) return;
    mps_group* g = r->group;
    mps_checks* c = g->checks;
    uint self = g->running, simd = self / MPS_SIMD, me = r->local ? 1 : c->group_id;
    uint at = c->barriers[!r->local], simd_at = c->simd_barriers[simd][!r->local];
    mps_word* end = r->words + (p + size - 1 - r->words_begin) / 4;
    for (mps_word* w = r->words + (p - r->words_begin) / 4; w <= end; ++w) {
        if (w->write_group && w->write_group != me) mps_raise_access(r, MPS_RACE_BETWEEN_GROUPS, p, size, write, -1);
        if (w->writer && w->writer != self + 1 && w->write_at == at &&
            (uint(w->writer - 1) / MPS_SIMD != simd || w->write_simd_at == simd_at)) {
            mps_raise_access(r, MPS_RACE, p, size, write, w->writer - 1);
        }
        if (write) {
            if (w->read_group && w->read_group != me) mps_raise_access(r, MPS_RACE_BETWEEN_GROUPS, p, size, write, -1);
            if (w->read_group && w->read_at == at &&
                (w->read_simd != simd + 1 || (w->read_simd_at == simd_at && w->reader != self + 1))) {
                mps_raise_access(r, MPS_RACE, p, size, write, w->reader == MPS_MANY ? -1 : w->reader - 1);
            }
            w->write_group = me;
            w->writer = ushort(self + 1);
            w->write_at = at;
            w->write_simd_at = simd_at;
        } else {
            if (r->local && !w->writer) mps_raise_access(r, MPS_UNINITIALISED, p, size, write, -1);
            bool same = w->read_group == me && w->read_at == at;
            bool same_simd = same && w->read_simd == simd + 1;
            bool recent = same_simd && w->read_simd_at == simd_at;
            w->reader = recent && w->reader != self + 1 ? MPS_MANY : ushort(self + 1);
            w->read_simd = same && !same_simd ? MPS_MANY : ushort(simd + 1);
            w->read_group = w->read_group && w->read_group != me ? MPS_MANY_GROUPS : me;
            w->read_at = at;
            w->read_simd_at = simd_at;
        }
    }
}

// --- pointers ---------------------------------------------------------------------------------------------------------
struct mps_in_device {};
struct mps_in_constant {};
struct mps_in_threadgroup {};
struct mps_in_thread {};

template <class T, class Space>
struct mps_element {
    T* p;
    const mps_region* r;
    operator T() const {
        mps_check(r, (const char*)p, sizeof(T), alignof(T), false);
        return *p;
    }
    void store(T value) const {
        mps_check(r, (const char*)p, sizeof(T), alignof(T), true);
        *p = value;
    }
};

// What indexing a pointer to something writable gives: reads and writes go through the check.
template <class T, class Space>
struct mps_reference : mps_element<T, Space> {
    mps_reference(T* p, const mps_region* r) : mps_element<T, Space>{p, r} {}
#define MPS_ASSIGNMENTS(T) \
    mps_reference(const mps_reference&) = default; \
    const mps_reference& operator=(T value) const { this->store(value); return *this; } \
    const mps_reference& operator=(const mps_reference& other) const { this->store(T(other)); return *this; } \
    const mps_reference& operator+=(T value) const { this->store(T(T(*this) + value)); return *this; } \
    const mps_reference& operator-=(T value) const { this->store(T(T(*this) - value)); return *this; } \
    const mps_reference& operator*=(T value) const { this->store(T(T(*this) * value)); return *this; }
    MPS_ASSIGNMENTS(T)
};

template <class Space>
struct mps_reference<half, Space> : mps_element<half, Space> {
    mps_reference(half* p, const mps_region* r) : mps_element<half, Space>{p, r} {}
    operator float() const { return half(*this); }
    MPS_ASSIGNMENTS(half)
};

template <class Space>
struct mps_reference<float2, Space> : mps_element<float2, Space> {
    mps_reference<float, Space> x, y;
    mps_reference(float2* p, const mps_region* r)
        : mps_element<float2, Space>{p, r}, x((float*)p, r), y((float*)p + 1, r) {}
    MPS_ASSIGNMENTS(float2)
};

template <class Space>
struct mps_reference<float4, Space> : mps_element<float4, Space> {
    mps_reference<float, Space> x, y, z, w;
    mps_reference(float4* p, const mps_region* r)
        : mps_element<float4, Space>{p, r}, x((float*)p, r), y((float*)p + 1, r), z((float*)p + 2, r), w((float*)p + 3, r) {}
    MPS_ASSIGNMENTS(float4)
};
#undef MPS_ASSIGNMENTS

// Indexing: a value for const T, a reference otherwise
template <class T, class Space>
struct mps_access { typedef mps_reference<T, Space> type; };
template <class T, class Space>
struct mps_access<const T, Space> { typedef T type; };

template <class T> struct mps_is_const { static const bool value = false; };
template <class T> struct mps_is_const<const T> { static const bool value = true; };

template <class T, class Space>
struct mps_pointer {
    T* p;
    const mps_region* r;
    mps_pointer() = default;
    mps_pointer(T* p, const mps_region* r) : p(p), r(r) {}
    operator mps_pointer<const T, Space>() const { return {p, r}; }
    template <class U>
    explicit mps_pointer(mps_pointer<U, Space> other) : p((T*)other.p), r(other.r) {
        static_assert(mps_is_const<T>::value || !mps_is_const<U>::value, "the cast drops const");
    }
    typename mps_access<T, Space>::type operator[](mps_long i) const { return at(p + i, (T*)nullptr); }
    typename mps_access<T, Space>::type operator*() const { return at(p, (T*)nullptr); }
    mps_pointer operator+(mps_long n) const { return {p + n, r}; }
    mps_pointer operator-(mps_long n) const { return {p - n, r}; }
    mps_long operator-(mps_pointer other) const { return p - other.p; }
    mps_pointer& operator+=(mps_long n) { p += n; return *this; }
    mps_pointer& operator-=(mps_long n) { p -= n; return *this; }
    mps_pointer& operator++() { ++p; return *this; }
    mps_pointer& operator--() { --p; return *this; }
    bool operator==(mps_pointer other) const { return p == other.p; }
    bool operator!=(mps_pointer other) const { return p != other.p; }
    bool operator<(mps_pointer other) const { return p < other.p; }

private:
    template <class U>
    U at(const U* where, const U*) const { return mps_element<const U, Space>{where, r}; }
    template <class U>
    mps_reference<U, Space> at(U* where, U*) const { return {where, r}; }
};
template <class T, class Space>
static inline mps_pointer<T, Space> operator+(mps_long n, mps_pointer<T, Space> pointer) { return pointer + n; }

// Also made from a table at program scope, which has no region
template <class T>
struct mps_pointer<T, mps_in_constant> {
    T* p;
    const mps_region* r;
    mps_pointer() = default;
    mps_pointer(T* p, const mps_region* r = nullptr) : p(p), r(r) {}
    T operator[](mps_long i) const { return mps_element<T, mps_in_constant>{p + i, r}; }
    T operator*() const { return mps_element<T, mps_in_constant>{p, r}; }
    mps_pointer operator+(mps_long n) const { return {p + n, r}; }
    mps_pointer operator-(mps_long n) const { return {p - n, r}; }
    mps_pointer& operator+=(mps_long n) { p += n; return *this; }
};

// A thread's own memory: bounds only, nobody else is there to race with
template <class T>
struct mps_pointer<T, mps_in_thread> {
    T* p;
    const mps_region* r;
    mps_pointer() = default;
    mps_pointer(T* p, const mps_region* r = nullptr) : p(p), r(r) {}
    operator mps_pointer<const T, mps_in_thread>() const { return {p, r}; }
    template <class U>
    explicit mps_pointer(mps_pointer<U, mps_in_thread> other) : p((T*)other.p), r(other.r) {}
    T& operator[](mps_long i) const {
        mps_check(r, (const char*)(p + i), sizeof(T), alignof(T), !mps_is_const<T>::value);
        return p[i];
    }
    T& operator*() const { return (*this)[0]; }
    mps_pointer operator+(mps_long n) const { return {p + n, r}; }
    mps_pointer operator-(mps_long n) const { return {p - n, r}; }
    mps_pointer& operator+=(mps_long n) { p += n; return *this; }
};

// An array in registers. What it holds before it is written is NaN, so that it shows.
template <class T, mps_size size>
struct mps_local {
    T data[size];
    mps_region region;
    explicit mps_local(const char* name)
        : region{(char*)data, (char*)(data + size), mps_current, nullptr, nullptr, name, -1, false} {
        __builtin_memset(data, 0xff, sizeof data);
    }
    mps_local(const mps_local&) = delete;
    operator mps_pointer<T, mps_in_thread>() { return {data, &region}; }
    operator mps_pointer<const T, mps_in_thread>() { return {data, &region}; }
    mps_pointer<T, mps_in_thread> operator+(mps_long n) { return {data + n, &region}; }
    T& operator[](mps_long i) { return (*this + i)[0]; }
};

template <class T, class Space>
static inline T mps_value(mps_reference<T, Space> reference) { return reference; }
template <class T>
static inline T mps_value(T value) { return value; }
template <class To, class T, class Space>
static inline To as_type(mps_reference<T, Space> from) { return as_type<To>(T(from)); }

// --- barriers, arrays, arguments ----------------------------------------------------------------------------------------
static __attribute__((noinline)) void mps_threadgroup_meet(mps_group* g, mem_flags flags, int line) {
    if (!mps_arrive(g, g->waiting, g->size, line)) return mps_wait(g);
    if (g->launch->counters) ++g->launch->counters[1];
    if (uint(flags) & uint(mem_flags::mem_threadgroup)) ++g->checks->barriers[0];
    if (uint(flags) & uint(mem_flags::mem_device)) ++g->checks->barriers[1];
}
static __attribute__((noinline)) void mps_simdgroup_meet(mps_group* g, mem_flags flags, int line) {
    uint simd = g->running / MPS_SIMD;
    if (!mps_arrive(g, g->simds[simd], uint(g->simds[simd].size), line)) return mps_wait(g);
    if (g->launch->counters) ++g->launch->counters[2];
    if (uint(flags) & uint(mem_flags::mem_threadgroup)) ++g->checks->simd_barriers[simd][0];
    if (uint(flags) & uint(mem_flags::mem_device)) ++g->checks->simd_barriers[simd][1];
}
#define threadgroup_barrier(flags) mps_threadgroup_meet(mps_current, flags, __LINE__)
#define simdgroup_barrier(flags) mps_simdgroup_meet(mps_current, flags, __LINE__)

// What is counted for an argument, or for threadgroup memory (-1).
static inline mps_long* mps_counts(const mps_launch* launch, mps_long argument) {
    return launch->counters ? launch->counters + 3 + 6 * (1 + argument) : nullptr;
}

template <class T>
static mps_pointer<T, mps_in_threadgroup> mps_declare(mps_size count, const char* name) {
    mps_group* g = mps_current;
    mps_checks* c = g->checks;
    const char* begin = g->memory + mps_take_threadgroup(g, sizeof(T) * count);
    uint i = 0;
    while (i < c->array_count && c->arrays[i].begin != begin) ++i;
    if (i == c->array_count) {
        if (i == MPS_MAX_ARRAYS) mps_raise(g, MPS_THREADGROUP_SIZE, MPS_THREADGROUP_BYTES + 1);
        c->arrays[c->array_count++] =
            mps_region{begin, begin + sizeof(T) * count, g, c->local_words, g->memory, name, -1, true, mps_counts(g->launch, -1),
                       nullptr};
    }
    return {(T*)begin, &c->arrays[i]};
}
#define MPS_THREADGROUP_ARRAY(type, name, size) \
    mps_pointer<type, mps_in_threadgroup> name = mps_declare<type>(size, #name)
#define MPS_BUFFER(type, index, space) \
    mps_pointer<type, mps_in_##space>((type*)mps_launched->arguments[index].data, &mps_current->checks->buffers[index])
#define MPS_SCALAR(type, index, space) *(type*)mps_launched->arguments[index].data

// Memory that the kernel may write gets words; arguments that overlap share them.
static mps_long mps_share_words(mps_checks* c, const mps_launch* launch, mps_word** made) {
    struct { const char *begin, *end; } spans[31];
    mps_long count = 0;
    for (mps_long i = 0; i < launch->argument_count; ++i) {
        const mps_region& r = c->buffers[i];
        if (launch->arguments[i].writable && r.end > r.begin) spans[count++] = {r.begin, r.end};
    }
    for (bool changed = true; changed;) {
        changed = false;
        for (mps_long s = 0; s < count; ++s) {
            for (mps_long i = 0; i < launch->argument_count; ++i) {
                const mps_region& r = c->buffers[i];
                if (r.begin >= spans[s].end || r.end <= spans[s].begin) continue;
                if (r.begin < spans[s].begin) spans[s].begin = r.begin, changed = true;
                if (r.end > spans[s].end) spans[s].end = r.end, changed = true;
            }
            for (mps_long o = s + 1; o < count; ++o) {
                if (spans[o].begin >= spans[s].end || spans[o].end <= spans[s].begin) continue;
                if (spans[o].begin < spans[s].begin) spans[s].begin = spans[o].begin;
                if (spans[o].end > spans[s].end) spans[s].end = spans[o].end;
                spans[o--] = spans[--count];
                changed = true;
            }
        }
    }
    for (mps_long s = 0; s < count; ++s) {
        const char* begin = (const char*)((mps_size)spans[s].begin & ~mps_size(3));
        made[s] = (mps_word*)__builtin_calloc(mps_size(spans[s].end - begin) / 4 + 1, sizeof(mps_word));
        for (mps_long i = 0; i < launch->argument_count; ++i) {
            mps_region& r = c->buffers[i];
            if (r.begin >= spans[s].begin && r.end <= spans[s].end && r.end > r.begin) {
                r.words = made[s];
                r.words_begin = begin;
            }
        }
    }
    return count;
}

static void mps_launch_checked(const mps_launch* launch, mps_body body) {
    mps_group* g = (mps_group*)launch->arena;
    mps_checks* c = g->checks = (mps_checks*)__builtin_calloc(1, sizeof(mps_checks));
    for (mps_long i = 0; i < launch->argument_count; ++i) {
        const char* begin = (const char*)launch->arguments[i].data;
        const char* end = begin + launch->arguments[i].bytes;
        uint* stamps = launch->counters ? (uint*)__builtin_calloc(mps_size(end - begin) / 4 + 2, 2 * sizeof(uint)) : nullptr;
        c->buffers[i] =
            mps_region{begin, end, g, nullptr, nullptr, nullptr, int(i), false, mps_counts(launch, i), stamps};
    }
    mps_word* made[31];
    mps_long count = mps_share_words(c, launch, made);
    mps_run_groups(launch, body, true, [](mps_group* g) {
        mps_checks* c = g->checks;
        c->array_count = 0;
        if (g->launch->counters) ++g->launch->counters[0];
        c->barriers[0] = c->barriers[1] = 0;
        c->group_id = 1 + g->position.x + g->count.x * (g->position.y + g->count.y * g->position.z);
        __builtin_memset(c->simd_barriers, 0, sizeof c->simd_barriers);
        __builtin_memset(c->local_words, 0, sizeof c->local_words);
        __builtin_memset(g->memory, 0xff, sizeof g->memory);  // NaN, should a word be read unwritten after all
    });
    for (mps_long i = 0; i < count; ++i) __builtin_free(made[i]);
    for (mps_long i = 0; i < launch->argument_count; ++i) __builtin_free(c->buffers[i].stamps);
    __builtin_free(c);
}

#define MPS_ENTRY(name, limit, arguments) \
    extern "C" __attribute__((visibility("default"))) const int mps_limit_##name = limit; \
    extern "C" __attribute__((visibility("default"))) void mps_launch_##name(const mps_launch* launch) { \
        mps_launch_checked(launch, [](const mps_launch* mps_launched, const mps_ids& mps_at) { \
            (void)mps_launched, (void)mps_at; \
            name arguments; \
        }); \
    }

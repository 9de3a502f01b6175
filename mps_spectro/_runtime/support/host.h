// Threadgroup memory and arguments without checks.
#define mps_value(value) (value)
#define threadgroup_barrier(flags) mps_threadgroup_meet(mps_current, __LINE__)
#define simdgroup_barrier(flags) mps_simd_meet(mps_current, __LINE__)

static __attribute__((noinline)) void mps_threadgroup_meet(mps_group* g, int line) {
    if (!mps_arrive(g, g->waiting, g->size, line)) mps_wait(g);
}

#define MPS_THREADGROUP_ARRAY(type, name, size) \
    type(&name)[size] = *(type(*)[size])(mps_current->memory + mps_take_threadgroup(mps_current, sizeof(type[size])))
#define MPS_BUFFER(type, index, space) (type*)mps_launched->arguments[index].data
#define MPS_SCALAR(type, index, space) *(type*)mps_launched->arguments[index].data
#define MPS_ENTRY(name, limit, arguments) \
    extern "C" __attribute__((visibility("default"))) const int mps_limit_##name = limit; \
    extern "C" __attribute__((visibility("default"))) void mps_launch_##name(const mps_launch* launch) { \
        mps_run_groups(launch, [](const mps_launch* mps_launched, const mps_ids& mps_at) { \
            (void)mps_launched, (void)mps_at; \
            name arguments; \
        }, false, [](mps_group*) {}); \
    }

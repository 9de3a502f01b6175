// How the threads of a group share its frames: GROUP threads, `slots` frames at a time, `threads` threads each.
#if KIND_MIXED
#define SLOT_THREADS(p) int((p)[P_THREADS])
#define SLOT_COUNT(p) int((p)[P_SLOTS])
#define SLOT_STRIDE(p) (int((p)[P_POINTS]) * (PING_PONG + 1))
#else
#define SLOT_THREADS(p) THREADS
#define SLOT_COUNT(p) SLOTS
#define SLOT_STRIDE(p) SLOT_SIZE
#endif
#define IDLE (1 << 24)  // the thread number, in its slot, of a thread that has none: beyond every loop

struct Slot {
    int index;    // which frame of the group
    int t;        // which thread of the frame
    bool active;  // the frame exists
    uint row;
    uint unit;    // frame (pair) or item in the row
};

inline Slot find_slot(constant long* p, uint thread_index, uint group_index) {
    const int threads = SLOT_THREADS(p);
    const int slots = SLOT_COUNT(p);
    Slot slot;
#if SIMD_SLOTS
    // so many whole slots in a simdgroup, which has threads left over
    const int lane = int(thread_index % 32u);
    slot.index = int(thread_index / 32u) * SIMD_SLOTS + min(lane / THREADS, SIMD_SLOTS - 1);
    slot.t = lane < SIMD_SLOTS * THREADS ? lane % THREADS : IDLE;
#else
    slot.index = int(thread_index / uint(threads));
    slot.t = int(thread_index % uint(threads));
#endif
#if KIND_MIXED
    if (slot.index >= slots) {
        slot.index = 0;
        slot.t = IDLE;
    }
#endif
    const uint units = uint(p[P_UNITS]);
    const uint per_row = uint(p[P_UNITS_PER_ROW]);
    const uint u = group_index * uint(slots) + uint(slot.index);
    slot.active = u < units && slot.t < IDLE;
    const uint existing = min(u, units - 1u);  // the rest of the last group repeats its last frame, unwritten
    slot.row = existing / per_row;
    slot.unit = existing - slot.row * per_row;
    return slot;
}

// The (first) frame that a slot of analysis takes.
inline long first_frame(Slot slot) { return long(slot.unit) * (PAIR ? 2 : 1); }

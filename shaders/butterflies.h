// Small forward DFTs in registers: v[k] <- sum_n v[n] exp(-2 pi i n k / R), in place and in natural order.

inline void dft2(thread float2* v) {
    const float2 a = v[0];
    v[0] = a + v[1];
    v[1] = a - v[1];
}

inline void dft4(thread float2* v) {
    const float2 a = v[0] + v[2];
    const float2 b = v[0] - v[2];
    const float2 c = v[1] + v[3];
    const float2 d = v[1] - v[3];
    v[0] = a + c;
    v[2] = a - c;
    v[1] = make_c(b.x + d.y, b.y - d.x);
    v[3] = make_c(b.x - d.y, b.y + d.x);
}

#define SQRT_HALF 0.70710678118654752f

inline void dft8(thread float2* v) {
    float2 even[4];
    float2 odd[4];
    UNROLL
    for (int i = 0; i < 4; ++i) {
        even[i] = v[2 * i];
        odd[i] = v[2 * i + 1];
    }
    dft4(even);
    dft4(odd);
    odd[1] = make_c((odd[1].x + odd[1].y) * SQRT_HALF, (odd[1].y - odd[1].x) * SQRT_HALF);
    odd[2] = make_c(odd[2].y, -odd[2].x);
    odd[3] = make_c((odd[3].y - odd[3].x) * SQRT_HALF, -(odd[3].x + odd[3].y) * SQRT_HALF);
    UNROLL
    for (int i = 0; i < 4; ++i) {
        v[i] = even[i] + odd[i];
        v[i + 4] = even[i] - odd[i];
    }
}

// exp(-2 pi i m / 16), m = 0 .. 7, and exp(-2 pi i m / 20), m = 0 .. 9
constant float ROTATION_20_RE[10] = {1.0f, 0.95105651629515357f, 0.80901699437494742f, 0.58778525229247313f,
                                     0.30901699437494742f, 0.0f, -0.30901699437494742f, -0.58778525229247313f,
                                     -0.80901699437494742f, -0.95105651629515357f};
constant float ROTATION_20_IM[10] = {0.0f, -0.30901699437494742f, -0.58778525229247313f, -0.80901699437494742f,
                                     -0.95105651629515357f, -1.0f, -0.95105651629515357f, -0.80901699437494742f,
                                     -0.58778525229247313f, -0.30901699437494742f};
constant float ROTATION_RE[8] = {1.0f, 0.92387953251128676f, 0.70710678118654752f, 0.38268343236508977f,
                                 0.0f, -0.38268343236508977f, -0.70710678118654752f, -0.92387953251128676f};
constant float ROTATION_IM[8] = {0.0f, -0.38268343236508977f, -0.70710678118654752f, -0.92387953251128676f,
                                 -1.0f, -0.92387953251128676f, -0.70710678118654752f, -0.38268343236508977f};

#define COS_PI_8 0.92387953251128676f
#define SIN_PI_8 0.38268343236508977f

inline void dft16(thread float2* v) {
    float2 u[16];
    UNROLL
    for (int i = 0; i < 4; ++i) {
        float2 column[4];
        UNROLL
        for (int j = 0; j < 4; ++j) { column[j] = v[4 * j + i]; }
        dft4(column);
        UNROLL
        for (int j = 0; j < 4; ++j) { u[4 * i + j] = column[j]; }
    }
    // exp(-2 pi i m / 16) for the products i * j = 1, 2, 3, 4, 6, 9
    u[5] = c_mul(u[5], make_c(COS_PI_8, -SIN_PI_8));
    u[6] = make_c((u[6].x + u[6].y) * SQRT_HALF, (u[6].y - u[6].x) * SQRT_HALF);
    u[7] = c_mul(u[7], make_c(SIN_PI_8, -COS_PI_8));
    u[9] = make_c((u[9].x + u[9].y) * SQRT_HALF, (u[9].y - u[9].x) * SQRT_HALF);
    u[10] = make_c(u[10].y, -u[10].x);
    u[11] = make_c((u[11].y - u[11].x) * SQRT_HALF, -(u[11].x + u[11].y) * SQRT_HALF);
    u[13] = c_mul(u[13], make_c(SIN_PI_8, -COS_PI_8));
    u[14] = make_c((u[14].y - u[14].x) * SQRT_HALF, -(u[14].x + u[14].y) * SQRT_HALF);
    u[15] = c_mul(u[15], make_c(-COS_PI_8, SIN_PI_8));
    UNROLL
    for (int j = 0; j < 4; ++j) {
        float2 row[4];
        UNROLL
        for (int i = 0; i < 4; ++i) { row[i] = u[4 * i + j]; }
        dft4(row);
        UNROLL
        for (int i = 0; i < 4; ++i) { v[4 * i + j] = row[i]; }
    }
}

// cos(2 pi m / R) and sin(2 pi m / R) for m = 0 .. (R - 1) / 2, one row for each odd prime radix
constant float COSINES[5][7] = {
    {1.0f, -0.5f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f},
    {1.0f, 0.30901699437494742f, -0.80901699437494742f, 0.0f, 0.0f, 0.0f, 0.0f},
    {1.0f, 0.62348980185873353f, -0.22252093395631440f, -0.90096886790241913f, 0.0f, 0.0f, 0.0f},
    {1.0f, 0.84125353283118117f, 0.41541501300188643f, -0.14231483827328514f, -0.65486073394528506f,
     -0.95949297361449739f, 0.0f},
    {1.0f, 0.88545602565320989f, 0.56806474673115581f, 0.12053668025532305f, -0.35460488704253562f,
     -0.74851074817110110f, -0.97094181742605203f}};
constant float SINES[5][7] = {
    {0.0f, 0.86602540378443865f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f},
    {0.0f, 0.95105651629515357f, 0.58778525229247313f, 0.0f, 0.0f, 0.0f, 0.0f},
    {0.0f, 0.78183148246802981f, 0.97492791218182361f, 0.43388373911755812f, 0.0f, 0.0f, 0.0f},
    {0.0f, 0.54064081745559758f, 0.90963199535451838f, 0.98982144188093273f, 0.75574957435425828f,
     0.28173255684142970f, 0.0f},
    {0.0f, 0.46472317204376855f, 0.82298386589365639f, 0.99270887409805400f, 0.93501624268541483f,
     0.66312265824079520f, 0.23931566428755777f}};

template <int R>
inline void dft_odd(thread float2* v) {
    const int row = R == 3 ? 0 : R == 5 ? 1 : R == 7 ? 2 : R == 11 ? 3 : 4;
    float2 sums[R / 2];
    float2 differences[R / 2];
    const float2 first = v[0];
    float2 total = first;
    UNROLL
    for (int i = 0; i < R / 2; ++i) {
        sums[i] = v[i + 1] + v[R - 1 - i];
        differences[i] = v[i + 1] - v[R - 1 - i];
        total = total + sums[i];
    }
    v[0] = total;
    UNROLL
    for (int k = 1; k <= R / 2; ++k) {
        float2 a = first;
        float2 b = make_c(0.0f, 0.0f);
        UNROLL
        for (int i = 1; i <= R / 2; ++i) {
            const int m = (i * k) % R;
            const float c = m <= R / 2 ? COSINES[row][m] : COSINES[row][R - m];
            const float s = m <= R / 2 ? SINES[row][m] : -SINES[row][R - m];
            a = a + sums[i - 1] * c;
            b = b + differences[i - 1] * s;
        }
        v[k] = make_c(a.x + b.y, a.y - b.x);
        v[R - k] = make_c(a.x - b.y, a.y + b.x);
    }
}

// Products of coprime factors A and 5 (Good 1958, Thomas 1963): no twiddles, only another order of what goes in and out.
// Row n1 of the input are elements 5 n1 + A n2, result (k1, k2) is element 5 u k1 + A w k2, u = 1 / 5 mod A, w = 1 / A mod 5.
template <int A, int AW>
inline void dft_by_five(thread float2* v) {
    float2 u[5 * A];
    UNROLL
    for (int n2 = 0; n2 < 5; ++n2) {
        float2 column[A];
        UNROLL
        for (int n1 = 0; n1 < A; ++n1) { column[n1] = v[(5 * n1 + A * n2) % (5 * A)]; }
        if (A == 2) {
            dft2(column);
        } else {
            dft4(column);
        }
        UNROLL
        for (int n1 = 0; n1 < A; ++n1) { u[5 * n1 + n2] = column[n1]; }
    }
    UNROLL
    for (int k1 = 0; k1 < A; ++k1) {
        float2 row[5];
        UNROLL
        for (int n2 = 0; n2 < 5; ++n2) { row[n2] = u[5 * k1 + n2]; }
        dft_odd<5>(row);
        UNROLL
        for (int k2 = 0; k2 < 5; ++k2) { v[(5 * k1 + AW * k2) % (5 * A)] = row[k2]; }
    }
}

template <int R>
inline void dft(thread float2* v) {
    if (R == 2) {
        dft2(v);
    } else if (R == 4) {
        dft4(v);
    } else if (R == 8) {
        dft8(v);
    } else if (R == 16) {
        dft16(v);
    } else if (R == 10) {
        dft_by_five<2, 6>(v);
    } else if (R == 20) {
        dft_by_five<R == 20 ? 4 : 2, 16>(v);
    } else {
        dft_odd<R % 2 == 1 ? R : 3>(v);
    }
}

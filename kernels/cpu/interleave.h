// The byte shuffles of loading a weight: packed codes of an ONNX tensor to lines of a panel (panel.h), without
// a stop at one code a byte. Written with the vectors of GCC and Clang, so that every 64- or 128-bit processor
// gets its own instructions; the baseline of x86-64 (SSE2) is enough.
//
// kBits is 2, 4 or 8; kFields = 8 / kBits codes share a byte, in the file along a row (or column) and in a line
// along K, 4 apart.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace onnxq::cpu {

using Bytes = uint8_t __attribute__((vector_size(16)));
using Shorts = uint16_t __attribute__((vector_size(16)));
using Words = uint32_t __attribute__((vector_size(16)));

inline Bytes load_bytes(const uint8_t* from) {
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return bytes;
}

inline void store_bytes(uint8_t* to, Bytes bytes) { std::memcpy(to, &bytes, sizeof(bytes)); }

// Past the caches, which a weight that is loaded would only sweep clean: `to` is on a boundary of 16 bytes.
inline void stream_bytes(uint8_t* to, Bytes bytes) {
#if defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(bytes));
#else
  store_bytes(to, bytes);
#endif
}

// Streamed bytes are in memory for every thread.
inline void finish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

#if defined(__clang__)
#define ONNXQ_SHUFFLE(a, b, type, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define ONNXQ_SHUFFLE(a, b, type, ...) __builtin_shuffle(a, b, type{__VA_ARGS__})
#endif

// Elements of the lower (upper) halves of two vectors in turns.
inline Bytes zip_low(Bytes a, Bytes b) {
  return ONNXQ_SHUFFLE(a, b, Bytes, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Bytes zip_high(Bytes a, Bytes b) {
  return ONNXQ_SHUFFLE(a, b, Bytes, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
inline Shorts zip_low(Shorts a, Shorts b) { return ONNXQ_SHUFFLE(a, b, Shorts, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Shorts zip_high(Shorts a, Shorts b) { return ONNXQ_SHUFFLE(a, b, Shorts, 4, 12, 5, 13, 6, 14, 7, 15); }
inline Words zip_low(Words a, Words b) { return ONNXQ_SHUFFLE(a, b, Words, 0, 4, 1, 5); }
inline Words zip_high(Words a, Words b) { return ONNXQ_SHUFFLE(a, b, Words, 2, 6, 3, 7); }

template <class Elements>
inline Bytes zip_low_as(Bytes a, Bytes b) {
  return reinterpret_cast<Bytes>(zip_low(reinterpret_cast<Elements>(a), reinterpret_cast<Elements>(b)));
}
template <class Elements>
inline Bytes zip_high_as(Bytes a, Bytes b) {
  return reinterpret_cast<Bytes>(zip_high(reinterpret_cast<Elements>(a), reinterpret_cast<Elements>(b)));
}

// out[c][i] = rows[i][c]: 4 rows of 16 bytes to one line of 16 columns.
template <void (*kStore)(uint8_t*, Bytes)>
inline void store_line(const Bytes rows[4], uint8_t* out) {
  const Bytes low01 = zip_low(rows[0], rows[1]), high01 = zip_high(rows[0], rows[1]);
  const Bytes low23 = zip_low(rows[2], rows[3]), high23 = zip_high(rows[2], rows[3]);
  kStore(out + 0, zip_low_as<Shorts>(low01, low23));
  kStore(out + 16, zip_high_as<Shorts>(low01, low23));
  kStore(out + 32, zip_low_as<Shorts>(high01, high23));
  kStore(out + 48, zip_high_as<Shorts>(high01, high23));
}

// Bits [kFrom, kFrom + kBits) of every byte, moved to [kTo, kTo + kBits).
template <int kBits, int kFrom, int kTo>
inline Bytes move_field(Bytes x) {
  constexpr auto kMask = static_cast<uint8_t>(((1 << kBits) - 1) << kTo);
  const auto shorts = reinterpret_cast<Shorts>(x);  // what crosses into the neighbouring byte is masked away
  constexpr int kDown = kFrom > kTo ? kFrom - kTo : 0, kUp = kTo > kFrom ? kTo - kFrom : 0;
  const Shorts moved = (shorts >> kDown) << kUp;
  return reinterpret_cast<Bytes>(moved) & (Bytes{} + kMask);
}

// One line of each of kFields panels from a row-major tensor: 4 * kFields rows, `stride` bytes apart, of which
// 16 bytes each are read. Lines of neighbouring panels are `panel_stride` apart.
template <int kBits>
inline void tensor_lines(const uint8_t* bytes, int64_t stride, Bytes flip, uint8_t* out, int64_t panel_stride) {
  constexpr int kFields = 8 / kBits;
  Bytes rows[kFields][4] = {};  // [panel][i]: 16 columns, each with all fields; GCC 12 warns without a value
  const auto row = [&](int r) { return load_bytes(bytes + r * stride) ^ flip; };
  for (int i = 0; i < 4; ++i) {
    if constexpr (kBits == 8) {
      rows[0][i] = row(i);
    } else if constexpr (kBits == 4) {
      const Bytes x = row(i), y = row(4 + i);
      const Bytes even = move_field<4, 0, 0>(x) | move_field<4, 0, 4>(y);
      const Bytes odd = move_field<4, 4, 0>(x) | move_field<4, 4, 4>(y);
      rows[0][i] = zip_low(even, odd);
      rows[1][i] = zip_high(even, odd);
    } else {
      const Bytes x = row(i), y = row(4 + i);
      const Bytes z = row(8 + i), w = row(12 + i);
      // Columns 4j + phase of all four fields.
      const auto phase = [&]<int kPhase>() {
        return move_field<2, 2 * kPhase, 0>(x) | move_field<2, 2 * kPhase, 2>(y) | move_field<2, 2 * kPhase, 4>(z) |
               move_field<2, 2 * kPhase, 6>(w);
      };
      const Bytes p0 = phase.template operator()<0>(), p1 = phase.template operator()<1>();
      const Bytes p2 = phase.template operator()<2>(), p3 = phase.template operator()<3>();
      const Bytes low01 = zip_low(p0, p1), high01 = zip_high(p0, p1);
      const Bytes low23 = zip_low(p2, p3), high23 = zip_high(p2, p3);
      rows[0][i] = zip_low_as<Shorts>(low01, low23);
      rows[1][i] = zip_high_as<Shorts>(low01, low23);
      rows[2][i] = zip_low_as<Shorts>(high01, high23);
      rows[3][i] = zip_high_as<Shorts>(high01, high23);
    }
  }
  for (int panel = 0; panel < kFields; ++panel) store_line<stream_bytes>(rows[panel], out + panel * panel_stride);
}

// A square of elements with rows and columns exchanged: each turn of zips moves one bit of the number of a row
// to that of a column.
template <class Elements, int kSize>
inline void transpose(Bytes (&square)[kSize]) {
  for (int turn = 1; turn < kSize; turn *= 2) {
    Bytes zipped[kSize];
    for (int i = 0; i < kSize / 2; ++i) {
      zipped[2 * i] = zip_low_as<Elements>(square[i], square[i + kSize / 2]);
      zipped[2 * i + 1] = zip_high_as<Elements>(square[i], square[i + kSize / 2]);
    }
    for (int i = 0; i < kSize; ++i) square[i] = zipped[i];
  }
}

// Each word is 16 neighbouring 2-bit codes of a column: code number 4f + i, of byte f, to field f of byte i. That
// is a transposition of 4 x 4: exchanges of two masked parts, one bit of the two numbers after the other.
inline Bytes transpose_fields(Bytes bytes) {
  auto x = reinterpret_cast<Words>(bytes);
  const Words low = ((x >> 6) ^ x) & (Words{} + 0x00cc00ccu);
  x ^= low ^ (low << 6);
  const Words high = ((x >> 12) ^ x) & (Words{} + 0x0000f0f0u);
  return reinterpret_cast<Bytes>(x ^ high ^ (high << 12));
}

// Four lines of one panel from a transposed tensor: 16 columns, `stride` bytes apart, 16 bytes of each.
template <int kBits>
inline void transposed_lines(const uint8_t* bytes, int64_t stride, Bytes flip, uint8_t* out) {
  constexpr int kColumns = kBits == 4 ? 8 : 4;
  for (int c = 0; c < 16; c += kColumns) {
    Bytes square[kColumns];  // [column], then [part of a line]
    for (int j = 0; j < kColumns; ++j) square[j] = load_bytes(bytes + (c + j) * stride) ^ flip;
    if constexpr (kBits == 4) {
      transpose<Shorts>(square);
      for (int line = 0; line < 4; ++line) {
        const Bytes low = square[2 * line], high = square[2 * line + 1];  // codes 0 1 2 3 and 4 5 6 7
        const Bytes even = move_field<4, 0, 0>(low) | move_field<4, 0, 4>(high);
        const Bytes odd = move_field<4, 4, 0>(low) | move_field<4, 4, 4>(high);
        stream_bytes(out + line * 64 + c * 4, zip_low(even, odd));
        stream_bytes(out + line * 64 + c * 4 + 16, zip_high(even, odd));
      }
    } else {
      transpose<Words>(square);
      for (int line = 0; line < 4; ++line)
        stream_bytes(out + line * 64 + c * 4, kBits == 2 ? transpose_fields(square[line]) : square[line]);
    }
  }
}

// The part of a line that field kField of byte rows `from`, 4 apart, gives: row g in field g.
template <int kBits, int kField, int... kRow>
inline Bytes gather_field(const uint8_t* from, int64_t stride, std::integer_sequence<int, kRow...>) {
  return (move_field<kBits, kField * kBits, kRow * kBits>(load_bytes(from + 4 * kRow * stride)) | ...);
}

// Lines of one panel from a plane (LAYOUTS.md): 16 columns of 4 * kFields rows of bytes, whose fields are codes of
// rows far apart, and so belong to lines that are `field_distance` apart.
template <int kBits>
inline void plane_lines(const uint8_t* bytes, int64_t stride, uint8_t* out, int64_t field_distance) {
  constexpr int kFields = 8 / kBits;
  const auto line = [&]<int kField>() {
    Bytes rows[4];
    for (int i = 0; i < 4; ++i)
      rows[i] = gather_field<kBits, kField>(bytes + i * stride, stride, std::make_integer_sequence<int, kFields>());
    store_line<stream_bytes>(rows, out + kField * field_distance);
  };
  [&]<int... kField>(std::integer_sequence<int, kField...>) {
    (line.template operator()<kField>(), ...);
  }(std::make_integer_sequence<int, kFields>());
}

// The codes of 16 columns in one row of a plane: bytes shifted and masked.
inline Bytes plane_codes(const uint8_t* bytes, int shift, int bits) {
  const Shorts moved = reinterpret_cast<Shorts>(load_bytes(bytes)) >> static_cast<uint16_t>(shift);
  const auto mask = static_cast<uint8_t>((1 << bits) - 1);  // named, since UBSan's check makes the expression an int
  return reinterpret_cast<Bytes>(moved) & (Bytes{} + mask);
}

}  // namespace onnxq::cpu

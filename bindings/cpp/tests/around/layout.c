/* The constants of the specification of the in-place channel, against what the library says. */

#include <stdint.h>
#include <zerobuffer.h>

SNIPPET

int main(void) {
    for (uint64_t frame = 0; frame < 1000; frame++)
        if (zb2_slot(0, frame, 1) != zb_payload_size_for_frames(frame, 1)) return 1;
    if (ZB2_OIEB_RESPONSE - ZB2_OIEB_REQUEST != (ZB2_OIEB_WORD & 0xffff)) return 2;
    if (ZB2_STATE(ZB2_SEQUENCE_MAX, ZB2_CANCELLED) != UINT64_MAX - 0xff + ZB2_CANCELLED) return 3;
    return ZB2_READER_PID + 8 == ZB2_LOCK_CLIENT && ZB2_FRAME_LAST + 8 == ZB2_FRAME_HEADER ? 0 : 4;
}

/* What goes between OpenSSL's memory and the socket, and who may carry it: the part
   of the pump (pump.h) below OpenSSL. */
#ifndef PYKEYUPDATE_TRAFFIC_H
#define PYKEYUPDATE_TRAFFIC_H

#include "streams/pump.h"

/* Wait for an announcement; KU_DONE when there was one.  `unready`: what to say where
   the call may not wait. */
enum ku_progress ku_wait_for_news(struct ku_call *call, enum ku_progress unready);

/* Take a role, of which `taken` is the pump's mark and `mine` the call's; wait for it
   where another thread has it.  And give it up, if it is this call's. */
enum ku_progress ku_role_take(struct ku_call *call, int *taken, int *mine,
                              enum ku_progress unready);
void ku_role_give_up(struct ku_pump *pump, int *taken, int *mine);

/* How much OpenSSL has written that has not been sent; and could this call send it? */
size_t ku_output_left(const struct ku_call *call);
int ku_can_send(const struct ku_call *call);

/* How much to receive: no byte more than ends the record that has begun, or its
   header; also the next header, where this one is surely of data (behind the peer's
   close_notify may be what is not TLS, or another TLS); or all but that the last byte
   of what may be data is only looked at. */
enum ku_reach { KU_EXACTLY, KU_AHEAD, KU_KEEPING };

/* Receive once, with the role. */
enum ku_progress ku_receive_once(struct ku_call *call, enum ku_reach reach);

/* Take the byte out of the socket that KU_KEEPING has left there. */
void ku_take_kept_byte(struct ku_call *call);

#endif

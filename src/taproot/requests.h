/*
 * What the brain may ask: every request of PROTOCOL.md decoded, checked and done. Each has one handler, which reads all of its
 * fields before it does anything. Room for one answer (answers.h) is made sure of before.
 */
#ifndef REQUESTS_H
#define REQUESTS_H

#include "wire.h"

void request_handle(uint8_t type, struct reader reader);

#endif

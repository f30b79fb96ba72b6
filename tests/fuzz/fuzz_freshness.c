/* Timestamps in every unit: whatever is accepted lies between the years 0 and 9999. The first byte
 * says which unit. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "freshness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    enum time_unit unit = (enum time_unit)(data[0] % 3);
    struct platform platform = {.timestamp = {.from = {.source = FROM_HEADER, .name = "x-time"},
                                              .unit = unit,
                                              .past_us = 300000000,
                                              .future_us = 300000000}};
    struct slice text = {(const char *)data + 1, size - 1};
    int64_t us = 0, now = INT64_C(1700000000000000);
    bool parsed = freshness_parse(text, unit, &us);
    enum outcome outcome = freshness_check(&platform, text, NULL, now);
    assert(!parsed || (us >= -INT64_C(62167305600000000) && us < INT64_C(253402300800000000)));
    assert((outcome == OUTCOME_NONE) == (parsed && us >= now - 300000000 && us <= now + 300000000));
    return 0;
}

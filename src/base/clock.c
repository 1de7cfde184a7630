#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

int64_t clock_monotonic_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

void clock_text(char text[CLOCK_TEXT_SIZE], int64_t wall_us)
{
    const int64_t year_1 = -62135596800, year_9999_end = 253402300799;
    int64_t seconds = wall_us / 1000000, micros = wall_us % 1000000;
    if (micros < 0) {
        micros += 1000000;
        seconds -= 1;
    }
    time_t clamped = (time_t)(seconds < year_1 ? year_1
                              : seconds > year_9999_end ? year_9999_end : seconds);
    struct tm parts;
    gmtime_r(&clamped, &parts);
    char whole[80]; /* strftime's %Y would not pad a year below 1000 */
    snprintf(whole, sizeof whole, "%04d-%02d-%02dT%02d:%02d:%02d", parts.tm_year + 1900,
             parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
    snprintf(text, CLOCK_TEXT_SIZE, "%.19s.%06dZ", whole, (int)micros);
}

/* The number at text[at], of so many digits; -1 when it is none. */
static int digits(struct span text, size_t at, size_t count)
{
    int value = 0;
    if (at + count > text.length)
        return -1;
    for (size_t i = at; i < at + count; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return -1;
        value = value * 10 + (text.data[i] - '0');
    }
    return value;
}

static bool has(struct span text, size_t at, uint8_t byte)
{
    return at < text.length && text.data[at] == byte;
}

static int days_of(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* "2026-11-21T22:10:22", without an offset. */
static bool read_seconds(int64_t *ret, struct span text)
{
    int year = digits(text, 0, 4), month = digits(text, 5, 2), day = digits(text, 8, 2);
    int hour = digits(text, 11, 2), minute = digits(text, 14, 2), second = digits(text, 17, 2);
    if (!has(text, 4, '-') || !has(text, 7, '-') || !has(text, 10, 'T') || !has(text, 13, ':') ||
        !has(text, 16, ':') || year < 0 || month < 1 || month > 12 || day < 1 ||
        day > days_of(year, month) || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
        second < 0 || second > 59)
        return false;
    struct tm parts = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day,
                       .tm_hour = hour, .tm_min = minute, .tm_sec = second};
    *ret = (int64_t)timegm(&parts);
    return true;
}

/* "Z", "+01:00"; to the end of the text. */
static bool read_offset(int64_t *ret_seconds, struct span text, size_t at)
{
    if (has(text, at, 'Z')) {
        *ret_seconds = 0;
        return at + 1 == text.length;
    }
    int hours = digits(text, at + 1, 2), minutes = digits(text, at + 4, 2);
    bool east = has(text, at, '+');
    if ((!east && !has(text, at, '-')) || !has(text, at + 3, ':') || hours < 0 || hours > 23 ||
        minutes < 0 || minutes > 59 || at + 6 != text.length)
        return false;
    int64_t seconds = hours * 3600 + minutes * 60;
    *ret_seconds = east ? seconds : -seconds;
    return true;
}

bool clock_read(int64_t *ret_wall_us, struct span text)
{
    enum { FRACTION_AT = 19, FRACTION_MAX = 6 };
    int64_t seconds, offset, micros = 0;
    size_t at = FRACTION_AT;
    if (!read_seconds(&seconds, text))
        return false;
    if (has(text, at, '.')) {
        size_t count = 0;
        for (int64_t unit = 100000; count < FRACTION_MAX; count++, unit /= 10) {
            int digit = digits(text, at + 1 + count, 1);
            if (digit < 0)
                break;
            micros += digit * unit;
        }
        if (count == 0)
            return false;
        at += 1 + count;
    }
    if (!read_offset(&offset, text, at))
        return false;
    seconds -= offset;
    if (seconds < 0 || seconds > 253402300799)
        return false;
    *ret_wall_us = seconds * 1000000 + micros;
    return true;
}

/* What Prometheus' client libraries tell of a process (process_*), read from /proc when it is
 * scraped. Called by metrics_render(), on whatever thread that is; keeps no state. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* The first `size` - 1 bytes of a file, NUL-terminated; empty when it can't be read. */
static void read_text(const char *path, char *text, size_t size)
{
    text[0] = '\0';
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

/* The number at `index` (from 0) of a line of blank-separated words. */
static double number_at(const char *text, unsigned index)
{
    while (index-- > 0) {
        text += strcspn(text, " ");
        text += strspn(text, " ");
    }
    return strtod(text, NULL);
}

static void put(FILE *out, const char *name, const char *type, const char *help, double value)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name, type, name, value);
}

static unsigned open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    unsigned count = 0;
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count > 3 ? count - 3 : 0; /* ".", ".." and the directory itself */
}

/* Unix time of the machine's start; 0 when it is not told. */
static double boot_time(void)
{
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL)
        return 0;
    char *line = NULL;
    size_t size = 0;
    double time = 0;
    while (getline(&line, &size, file) > 0)
        if (strncmp(line, "btime ", 6) == 0)
            time = strtod(line + 6, NULL);
    free(line);
    fclose(file);
    return time;
}

void metrics_render_process(FILE *out)
{
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    put(out, "process_cpu_seconds_total", "counter", "CPU time spent, user and system.",
        (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);

    char text[1024];
    double page = (double)sysconf(_SC_PAGESIZE);
    read_text("/proc/self/statm", text, sizeof(text));
    put(out, "process_virtual_memory_bytes", "gauge", "Virtual memory.", number_at(text, 0) * page);
    put(out, "process_resident_memory_bytes", "gauge", "Resident memory.",
        number_at(text, 1) * page);

    put(out, "process_open_fds", "gauge", "Open file descriptors.", open_descriptors());
    struct rlimit limit = {0};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        put(out, "process_max_fds", "gauge", "Limit of open file descriptors.",
            (double)limit.rlim_cur);

    /* The program's name, in parentheses, may hold blanks: count from behind it. What follows
     * begins with the third field of proc(5), so threads (20) and start time (22) are 17 and 19. */
    read_text("/proc/self/stat", text, sizeof(text));
    const char *fields = strrchr(text, ')');
    if (fields == NULL || fields[1] != ' ')
        return;
    fields += 2;
    put(out, "process_threads", "gauge", "Threads.", number_at(fields, 17));
    put(out, "process_start_time_seconds", "gauge", "When the process started, Unix time.",
        boot_time() + number_at(fields, 19) / (double)sysconf(_SC_CLK_TCK));
}

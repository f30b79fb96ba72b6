/* The switches of prctl(2) and setrlimit(2) behind harden.h. Called by command/serve.c on the
 * control thread. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "harden.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void harden_process(void)
{
    static const struct rlimit none = {0, 0};
    /* None of these can fail with these arguments (prctl(2), setrlimit(2)); if one did, going on
     * without it would be what nobody asked for. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        setrlimit(RLIMIT_CORE, &none) != 0)
        abort();
    umask(077);
}

void harden_check_user(bool allow_root, const char *file, struct problems *problems)
{
    if (geteuid() == 0 && !allow_root)
        problem_add(problems, file, 0, 0,
                    "process.allow_root: refusing to run as root, which needs nothing of root's; "
                    "start it as a user of its own, or set process.allow_root: true");
}

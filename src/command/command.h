/* The commands of the hookgate binary: each takes what stands after its name and returns the exit
 * status: 0 fine, 1 the answer is no, 2 wrong usage or configuration. `--help` prints to standard
 * output and returns 0. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* argv[0] is the command's name. */
int command_serve(int argc, char **argv);
int command_reload(int argc, char **argv);
int command_check(int argc, char **argv);
int command_migrate(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_send(int argc, char **argv);
int command_seal(int argc, char **argv);
int command_audit(int argc, char **argv);
int command_stuck(int argc, char **argv);
int command_version(int argc, char **argv);

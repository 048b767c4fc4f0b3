// What poold uses of libsystemd: readiness, watchdog, socket activation.
#pragma once
#include <systemd/sd-daemon.h>

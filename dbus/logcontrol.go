package dbus

import (
	"context"
	"log/slog"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
)

// logState is the properties of LogControl1.
type logState struct {
	LogLevel                    func() string
	LogTarget, SyslogIdentifier string
}

// levels are syslog's, from the least to the most urgent, with the level of
// slog above which each begins.
var levels = []struct {
	name  string
	level slog.Level
}{
	{"debug", slog.LevelDebug},
	{"info", slog.LevelInfo},
	{"notice", slog.LevelInfo + 2},
	{"warning", slog.LevelWarn},
	{"err", slog.LevelError},
	{"crit", slog.LevelError + 4},
	{"alert", slog.LevelError + 8},
	{"emerg", slog.LevelError + 12},
}

// logControl is org.freedesktop.LogControl1, by which "systemctl --user
// service-log-level joulemuxd.service debug" works.
func (f *FrontEnd) logControl() (*bus.Interface, error) {
	return implement("freedesktop/org.freedesktop.LogControl1.xml", bus.Code{
		State:   always(logState{LogLevel: f.logLevel, LogTarget: f.LogTarget, SyslogIdentifier: "joulemuxd"}),
		Setters: map[string]any{"LogLevel": f.setLogLevel},
	})
}

func (f *FrontEnd) logLevel() string {
	name := levels[0].name
	for _, l := range levels {
		if f.Level.Level() >= l.level {
			name = l.name
		}
	}
	return name
}

func (f *FrontEnd) setLogLevel(_ context.Context, _ bus.Call, name string) error {
	var names []string
	for _, l := range levels {
		if l.name == name {
			f.Level.Set(l.level)
			return nil
		}
		names = append(names, l.name)
	}
	return job.InvalidField("LogLevel", "%q is none of %q", name, names)
}

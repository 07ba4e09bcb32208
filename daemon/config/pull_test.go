package config_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/config"
)

func TestWhenModelsAreFetched(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.Pull{
		"":                                                      {Auto: "never"},
		"models: {default: a}":                                  {Auto: "never"},
		"models: {auto_pull: never}":                            {Auto: "never"},
		"models: {auto_pull: ask}":                              {Auto: "ask"},
		"models: {auto_pull: on}":                               {Auto: "on"},
		"models: {auto_pull: \"on\"}":                           {Auto: "on"},
		"models: {pull: {on_battery: true}}":                    {Auto: "never", OnBattery: true},
		"models: {pull: {on_metered: true}}":                    {Auto: "never", OnMetered: true},
		"models: {pull: {on_battery: false}}":                   {Auto: "never"},
		"models: {pull: {registries: [HF.co, \"[::1]:5000\"]}}": {Auto: "never", Registries: []string{"hf.co", "[::1]:5000"}},
		"models: {auto_pull: , pull: }":                         {Auto: "never"},
		"models: {auto_pull: ask, default: {mains: a}}":         {Auto: "ask"},
	} {
		c, err := config.Parse([]byte(text))
		if err != nil || !reflect.DeepEqual(c.Pull, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, c.Pull, err, want)
		}
	}
	for text, says := range map[string]string{
		"models: {auto_pull: always}":                       `models.auto_pull: want one of never, ask, on, got "always"`,
		"models: {auto_pull: true}":                         `models.auto_pull: want a string, got "true"`,
		"models: {auto_pull: [on]}":                         "models.auto_pull: want a string",
		"models:\n  pull: {on_batery: true}":                `line 2: models.pull.on_batery: no such key; did you mean "on_battery"?`,
		"models:\n  pull: {on_battery: 3}":                  "line 2: models.pull.on_battery: want true or false",
		"models: {pull: {registries: hf.co}}":               "models.pull.registries: want a list",
		"models: {pull: {registries: [\"https://hf.co\"]}}": "want a host as names of models begin with it, such as hf.co",
		"models: {auto_pull: ask, auto_pull: on}":           "is there twice",
	} {
		if _, err := config.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

package main

import (
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func TestWhoMayLeaveIsSaid(t *testing.T) {
	tests := []struct {
		backend wire.Backend
		want    string
	}{
		{wire.Backend{}, ""},
		{wire.Backend{Remote: &wire.Remote{When: "named"}, Status: wire.BackendState{LastCheckUnix: 1}}, "remote, for nobody"},
		{
			wire.Backend{Remote: &wire.Remote{When: "needed", Clients: []string{"editor", "*"}, Classes: []string{"interactive"}, InputPrice: 0.15, OutputPrice: 0.6, Currency: "EUR"}},
			"remote, when needed, for editor, * (interactive); 0.15 and 0.6 EUR for a million tokens; not asked yet",
		},
	}
	for _, tt := range tests {
		if got := leave(tt.backend); got != tt.want {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
	}
}

func TestWhatAJobElsewhereTook(t *testing.T) {
	report := fields{"energy_quality": "none", "radio_joules": 4.8, "cost": 0.00027, "cost_currency": "EUR"}
	if got, want := tookEnergy(report), "remote: 0 J here, 4.80 J of the radio's estimated, 0.00027 EUR"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

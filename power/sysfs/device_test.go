package sysfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

func TestDevices(t *testing.T) {
	lines := func(machine string) string {
		devices, err := sysfs.Devices(powertest.Load(t, machine).Sys())
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, d := range devices {
			fmt.Fprintln(&b, d.Address, d.Class, d.Vendor, d.Status, d.State, d.Suspended, d.Active, d.Control)
		}
		return b.String()
	}
	for machine, want := range map[string]string{
		"optimus": "0000:00:02.0 0x030000 0x8086 active D0 0s 1h6m40s auto\n" +
			"0000:01:00.0 0x030000 0x10de suspended D3cold 1h6m25s 15s auto\n",
		"meteor-lake": "0000:00:02.0 0x030000 0x8086 active D0 0s 1h6m40s auto\n" +
			"0000:00:0b.0 0x120000 0x8086 suspended D3hot 1h6m30s 10s auto\n",
		"strix": "0000:c4:00.0 0x038000 0x1002 active D0 0s 1h6m40s auto\n" +
			"0000:c5:00.1 0x118000 0x1022 suspended D3hot 1h5m0s 1m40s auto\n",
		"vm": "0000:00:01.0 0x030000 0x1af4 active D0 0s 1h6m40s auto\n",
	} {
		if got := lines(machine); got != want {
			t.Errorf("%s has\n%swant\n%s", machine, got, want)
		}
	}
	if _, err := sysfs.Devices(tree(nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a bus: %v", err)
	}
}

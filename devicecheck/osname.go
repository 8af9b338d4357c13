package devicecheck

import "strings"

// osNames maps the spellings of inventories to the names that access.Device
// and min_os use. An entry also covers names it begins, as in "Windows 11 Pro".
var osNames = []struct{ spelling, name string }{
	{"macos", "macos"}, {"mac os x", "macos"}, {"mac os", "macos"}, {"os x", "macos"}, {"osx", "macos"}, {"darwin", "macos"}, {"macmdm", "macos"},
	{"windows", "windows"}, {"microsoft windows", "windows"}, {"win32", "windows"},
	{"linux", "linux"}, {"gnu/linux", "linux"},
	{"ios", "ios"}, {"iphone os", "ios"}, {"iphone", "ios"}, {"ipados", "ios"}, {"ipad", "ios"}, // one product line, numbered alike
	{"android", "android"}, {"androidforwork", "android"}, {"androidenterprise", "android"}, // as Entra says it
	{"chromeos", "chromeos"}, {"chrome os", "chromeos"}, {"cros", "chromeos"},
}

// normalOS returns the common name of an operating system. A name that is not
// in the table stays as it is, in lower case, so that min_os can list it.
func normalOS(value string) string {
	lower := strings.ToLower(strings.Join(strings.Fields(value), " "))
	for _, os := range osNames {
		if rest, ok := strings.CutPrefix(lower, os.spelling); ok && (rest == "" || rest[0] == ' ') {
			return os.name
		}
	}
	return lower
}

// versionIn takes the number from a text such as "macOS 15.4". Where there
// is more than one number, or the marketing number of Windows, it is unknown.
func versionIn(system, text string) string {
	version := ""
	for word := range strings.FieldsSeq(text) {
		if strings.Trim(word, "0123456789.") != "" || !strings.Contains(word, ".") && system != "macos" && system != "ios" && system != "android" {
			continue
		}
		if version != "" {
			return ""
		}
		version = word
	}
	if system == "windows" && strings.Count(version, ".") < 2 {
		return ""
	}
	return version
}

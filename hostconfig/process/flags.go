package process

import "strings"

// Flag returns the last value of a flag by any of its names ("--config", "-c"), empty if it is not
// given. It knows both forms that Go's programs take.
func Flag(args []string, names ...string) string {
	values := Flags(args, names...)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// Flags returns all values of a flag by any of its names, in their order.
func Flags(args []string, names ...string) []string {
	var values []string
	for i, arg := range args {
		for _, name := range names {
			value, ok := strings.CutPrefix(arg, name+"=")
			switch {
			case ok:
				values = append(values, value)
			case arg == name && i+1 < len(args):
				values = append(values, args[i+1])
			}
		}
	}
	return values
}

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text.RegularExpressions;

namespace ZeroBuffer.Tests
{
    /// <summary>
    /// The assembly declares what the C header does: all of its functions, structs of the same shape, the same numbers. The
    /// header's path is in the variable ZEROBUFFER_HEADER.
    /// </summary>
    internal static class HeaderTests
    {
        private static readonly Assembly Binding = typeof(ZeroBufferException).Assembly;
        private static readonly Type Native = Binding.GetType("ZeroBuffer.Native", true);

        private static string Header()
        {
            string path = Environment.GetEnvironmentVariable("ZEROBUFFER_HEADER");
            Check.That(path != null, "ZEROBUFFER_HEADER is not set");
            return Regex.Replace(File.ReadAllText(path), @"/\*.*?\*/|//[^\n]*", "", RegexOptions.Singleline);
        }

        [Test]
        private static void every_function_of_the_header_is_declared_with_as_many_parameters()
        {
            var inHeader = new SortedDictionary<string, int>();
            foreach (Match match in Regex.Matches(Header(), @"\b(zb_\w+)\(([^;{}]*?)\);"))
            {
                string parameters = match.Groups[2].Value.Trim();
                inHeader[match.Groups[1].Value] = parameters == "void" ? 0 : parameters.Split(',').Length;
            }
            Check.That(inHeader.Count > 30, "the header was not understood");
            var declared = new SortedDictionary<string, int>();
            foreach (MethodInfo method in Native.GetMethods(BindingFlags.Static | BindingFlags.NonPublic))
            {
                if (method.Name.StartsWith("zb_", StringComparison.Ordinal))
                {
                    declared[method.Name] = method.GetParameters().Length;
                }
            }
            Check.Equal(string.Join(" ", inHeader), string.Join(" ", declared));
        }

        [Test]
        private static void structs_have_the_shape_that_they_have_in_the_header()
        {
            var names = new Dictionary<string, string>
            {
                { "zb_error", "Error" }, { "zb_server_config", "ServerConfig" }, { "zb_client_config", "ClientConfig" },
                { "zb_reader_config", "ReaderConfig" }, { "zb_writer_config", "WriterConfig" },
                { "zb_client_state", "ClientState" }, { "zb_resent", "Resent" }, { "zb_lost", "Lost" },
                { "zb_reconnected", "Reconnected" }, { "zb_view", "View" }, { "zb_buffer", "Buffer" }, { "zb_frame", "Frame" },
                { "zb_service_config", "ServiceConfig" }, { "zb_client_identity", "ClientIdentity" },
            };
            string header = Header();
            MatchCollection structs = Regex.Matches(header, @"typedef struct (zb_\w+) \{(.*?)\} \1;", RegexOptions.Singleline);
            Check.Equal(names.Count, structs.Count);
            foreach (Match match in structs)
            {
                string name = match.Groups[1].Value;
                Check.That(names.ContainsKey(name), "nothing stands for " + name);
                Type type = Native.GetNestedType(names[name], BindingFlags.NonPublic);
                IEnumerable<string> inHeader = Regex.Matches(match.Groups[2].Value, @"([^;]+);").Cast<Match>().Select(OfC);
                const BindingFlags Fields = BindingFlags.Instance | BindingFlags.NonPublic;
                IEnumerable<string> declared = type.GetFields(Fields).OrderBy(field => field.MetadataToken).Select(OfManaged);
                Check.Equal(name + ": " + string.Join(" ", inHeader), name + ": " + string.Join(" ", declared));
            }
        }

        /// <summary>The kind of a field, as "u32" or "u64[8]".</summary>
        private static string OfC(Match declaration)
        {
            string text = declaration.Groups[1].Value.Trim();
            if (text.Contains("*"))
            {
                return "pointer";
            }
            string type = Regex.Match(text, @"^(struct )?(\w+)").Groups[2].Value;
            string kind = type == "size_t" ? "size" : type == "zb_status" ? "i32"
                : type.Replace("uint", "u").Replace("int", "i").Replace("_t", "");
            return kind + Regex.Match(text, @"\[\d+\]$").Value;
        }

        private static string OfManaged(FieldInfo field)
        {
            object[] buffers = field.GetCustomAttributes(typeof(FixedBufferAttribute), false);
            if (buffers.Length > 0)
            {
                var buffer = (FixedBufferAttribute)buffers[0];
                return Simple(buffer.ElementType) + "[" + buffer.Length + "]";
            }
            return field.FieldType.IsPointer ? "pointer" : Simple(field.FieldType);
        }

        private static string Simple(Type type)
        {
            if (type == typeof(UIntPtr))
            {
                return "size";
            }
            bool signed = type == typeof(int) || type == typeof(long);
            return (signed ? "i" : "u") + 8 * Marshal.SizeOf(type);
        }

        [Test]
        private static void numbers_are_those_of_the_header()
        {
            Dictionary<string, int> numbers = Regex.Matches(Header(), @"#define (ZB_\w+) (-?\d+)").Cast<Match>()
                .ToDictionary(match => match.Groups[1].Value, match => int.Parse(match.Groups[2].Value));
            foreach (string status in numbers.Keys.Where(IsStatus))
            {
                var kind = (ErrorKind)numbers[status];
                Check.Equal(status.Substring(3).Replace("_", ""), kind.ToString().ToUpperInvariant());
            }
            Check.Equal(numbers.Keys.Count(IsStatus), Enum.GetValues(typeof(ErrorKind)).Length);
            Check.Equal(numbers["ZB_WAIT_DEFAULT"], (int)WaitStrategy.SpinThenPark);
            Check.Equal(numbers["ZB_WAIT_PARK"], (int)WaitStrategy.Park);
            Check.Equal(numbers["ZB_WAIT_SPIN"], (int)WaitStrategy.Spin);
            Check.Equal(numbers["ZB_CHANNEL_ANY"], (int)ChannelKind.Any);
            Check.Equal(numbers["ZB_CHANNEL_IN_PLACE"], (int)ChannelKind.InPlace);
            Check.Equal(numbers["ZB_CHANNEL_TWO_BUFFERS"], (int)ChannelKind.TwoBuffers);
            Check.Equal(numbers["ZB_LIVENESS_PID"], (int)Liveness.Pid);
            Check.Equal(numbers["ZB_LIVENESS_LOCK"], (int)Liveness.Lock);
            Check.Equal(numbers["ZB_LIVENESS_NONE"], (int)Liveness.None);
            Check.Equal(numbers["ZB_REQUEST_NOT_STARTED"], (int)RequestState.NotStarted);
            Check.Equal(numbers["ZB_REQUEST_IN_DOUBT"], (int)RequestState.InDoubt);
            Check.Equal(numbers["ZB_CANCELLED"], (int)Constant("Cancelled"));
            Check.Equal(numbers["ZB_ABI_VERSION"], (int)(uint)Constant("Version"));
        }

        private static bool IsStatus(string name)
        {
            string[] others = { "ZB_OK", "ZB_ABI_", "ZB_REQUEST_", "ZB_FOREVER", "ZB_WAIT_", "ZB_CHANNEL_", "ZB_SERVER_", "ZB_THREADS_", "ZB_LIVENESS_", "ZB_CANCELLED" };
            return !others.Any(start => name.StartsWith(start, StringComparison.Ordinal));
        }

        private static object Constant(string name)
        {
            return Native.GetField(name, BindingFlags.Static | BindingFlags.NonPublic).GetRawConstantValue();
        }
    }
}

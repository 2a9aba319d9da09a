import java.io.PrintStream;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.record.internal.MemoryRecords;

/**
 * Writes each request and response of Kafka's own clients in its highest version, every field set:
 * a string to the name of its field, a number to what its name makes (see numberFor), two elements in
 * every array. A line is `Name version hex`.
 */
public final class Golden {
    public static void main(String[] args) throws Exception {
        Map<String, ApiMessage> messages = new TreeMap<>();
        Map<String, Schema> schemas = new TreeMap<>();
        for (ApiMessageType api : ApiMessageType.values()) {
            if (api.highestSupportedVersion(true) < api.lowestSupportedVersion()) {
                continue; // Removed with ZooKeeper; only its number is left.
            }
            add(messages, schemas, api.newRequest());
            add(messages, schemas, api.newResponse());
        }
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (Map.Entry<String, ApiMessage> entry : messages.entrySet()) {
            ApiMessage message = entry.getValue();
            short version = message.highestSupportedVersion();
            fill(message, schemas.get(entry.getKey()));
            ByteBuffer bytes = MessageUtil.toByteBufferAccessor(message, version).buffer();
            byte[] content = new byte[bytes.remaining()];
            bytes.get(content);
            ApiMessage again = message.getClass().getConstructor().newInstance();
            again.read(new ByteBufferAccessor(ByteBuffer.wrap(content)), version);
            if (!again.equals(message)) {
                throw new IllegalStateException(entry.getKey() + " does not read back");
            }
            out.println(entry.getKey() + " " + version + " " + HexFormat.of().formatHex(content));
        }
    }

    private static void add(Map<String, ApiMessage> messages, Map<String, Schema> schemas, ApiMessage message)
            throws Exception {
        String name = message.getClass().getSimpleName().replaceFirst("Data$", "");
        Schema[] all = (Schema[]) message.getClass().getField("SCHEMAS").get(null);
        messages.put(name, message);
        schemas.put(name, all[message.highestSupportedVersion()]);
    }

    /** Sets every field that the schema of this version has. */
    private static void fill(Object data, Schema schema) throws Exception {
        for (BoundField bound : schema.fields()) {
            if (bound.def.type instanceof TaggedFields tagged) {
                for (Field field : tagged.fields().values()) {
                    set(data, field);
                }
            } else {
                set(data, bound.def);
            }
        }
    }

    private static void set(Object data, Field field) throws Exception {
        String name = field.name.replace("_", "").toLowerCase();
        Method setter = Arrays.stream(data.getClass().getMethods())
                .filter(it -> it.getParameterCount() == 1 && it.getReturnType() == data.getClass())
                .filter(it -> it.getName().replaceFirst("^set(?=[A-Z])", "").toLowerCase().equals(name))
                .findFirst()
                .orElseThrow(() -> new IllegalStateException(data.getClass() + " has no " + field.name));
        Schema element = schemaOf(field.type);
        setter.invoke(data, value(field.name, setter.getGenericParameterTypes()[0], element));
    }

    private static Schema schemaOf(org.apache.kafka.common.protocol.types.Type type) {
        if (type instanceof Schema schema) {
            return schema;
        }
        return type.arrayElementType().map(Golden::schemaOf).orElse(nullable(type));
    }

    /** A nullable struct hides its schema. */
    private static Schema nullable(org.apache.kafka.common.protocol.types.Type type) {
        try {
            java.lang.reflect.Field hidden = type.getClass().getDeclaredField("schema");
            hidden.setAccessible(true);
            return (Schema) hidden.get(type);
        } catch (ReflectiveOperationException none) {
            return null;
        }
    }

    private static long numberFor(String name) {
        int sum = 0;
        for (byte one : name.getBytes(StandardCharsets.UTF_8)) {
            sum = sum * 31 + (one & 0xff);
        }
        return sum & 0x7fffffffL;
    }

    private static Object value(String name, Type type, Schema schema) throws Exception {
        long number = numberFor(name);
        if (type == String.class) {
            return name;
        } else if (type == boolean.class || type == Boolean.class) {
            return true;
        } else if (type == byte.class || type == Byte.class) {
            return (byte) (number & 0x7f);
        } else if (type == short.class || type == Short.class) {
            return (short) (number & 0x7fff);
        } else if (type == int.class || type == Integer.class) {
            // Also unsigned numbers of 16 bits, which are ints there.
            return name.endsWith("port") ? 65000 : (int) number;
        } else if (type == long.class || type == Long.class) {
            return number << 16;
        } else if (type == double.class || type == Double.class) {
            return number / 8.0;
        } else if (type == Uuid.class) {
            return new Uuid(number << 16, number);
        } else if (type == byte[].class) {
            return name.getBytes(StandardCharsets.UTF_8);
        } else if (type == ByteBuffer.class) {
            return ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8));
        } else if (type instanceof Class<?> records && records.getSimpleName().equals("BaseRecords")) {
            return MemoryRecords.readableRecords(ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8)));
        } else if (type instanceof ParameterizedType list) {
            Type element = list.getActualTypeArguments()[0];
            return List.of(value(name, element, schema), value(name + "_2", element, schema));
        } else if (Collection.class.isAssignableFrom((Class<?>) type)) {
            return collection(name, (Class<?>) type, schema);
        }
        Object nested = ((Class<?>) type).getConstructor().newInstance();
        fill(nested, schema);
        return nested;
    }

    /** A set with an order: its two elements may not be equal, so there is one. */
    @SuppressWarnings("unchecked")
    private static Object collection(String name, Class<?> type, Schema schema) throws Exception {
        Type element = ((ParameterizedType) type.getGenericSuperclass()).getActualTypeArguments()[0];
        Collection<Object> collection = (Collection<Object>) type.getConstructor().newInstance();
        collection.add(value(name, element, schema));
        return collection;
    }
}

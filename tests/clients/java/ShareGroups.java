import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ShareGroupDescription;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** Share consumers that a suite steps by commands, or leaves to run in threads of their own, and Admin for their groups. */
public class ShareGroups {
    private static final Map<String, Member> MEMBERS = new ConcurrentHashMap<>();

    private static final class Member {
        private final KafkaShareConsumer<String, String> consumer;
        private final ConcurrentLinkedQueue<String> read = new ConcurrentLinkedQueue<>();
        private final Map<String, ConsumerRecord<String, String>> last = new LinkedHashMap<>();
        private volatile boolean ending = false;
        private Thread thread = null;

        private Member(Properties settings, String topics) {
            consumer = new KafkaShareConsumer<>(settings);
            consumer.subscribe(List.of(topics.split(",")));
        }

        /** One poll, as PARTITION:OFFSET:DELIVERIES:VALUE for each record. */
        private String poll(long millis) {
            ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(millis));
            last.clear();
            List<String> told = new ArrayList<>();
            for (ConsumerRecord<String, String> record : records) {
                last.put(record.partition() + "-" + record.offset(), record);
                told.add(record.partition() + ":" + record.offset() + ":" + record.deliveryCount().map(String::valueOf).orElse("-") + ":" + record.value());
            }
            return String.join(" ", told);
        }

        private String acknowledge(AcknowledgeType type, String[] words, int from) {
            for (int at = from; at < words.length; at++) {
                consumer.acknowledge(last.get(words[at]), type);
            }
            return "marked";
        }

        private String commit() {
            Map<TopicIdPartition, Optional<KafkaException>> outcome = consumer.commitSync(Duration.ofSeconds(30));
            return outcome.values().stream().map(error -> error.map(one -> one.getClass().getSimpleName()).orElse("ok")).distinct().sorted().collect(Collectors.joining(" "));
        }

        private void run() {
            thread = new Thread(() -> {
                while (!ending) {
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                        read.add(record.value());
                    }
                }
            });
            thread.start();
        }

        private void close() throws InterruptedException {
            ending = true;
            if (thread != null) {
                thread.join();
            }
            consumer.close();
        }
    }

    private static Commands ofMembers(String bootstrap) {
        Commands commands = new Commands();
        commands.add("open", words -> {
            Properties settings = Commands.settings(bootstrap, words, 4);
            settings.put("group.id", words[2]);
            MEMBERS.put(words[1], new Member(settings, words[3]));
            return "open";
        });
        commands.add("poll", words -> MEMBERS.get(words[1]).poll(Long.parseLong(words[2])));
        commands.add("acknowledge", words -> {
            AcknowledgeType type = AcknowledgeType.valueOf(words[2].toUpperCase(Locale.ROOT));
            return MEMBERS.get(words[1]).acknowledge(type, words, 3);
        });
        commands.add("commit", words -> MEMBERS.get(words[1]).commit());
        commands.add("lock", words -> MEMBERS.get(words[1]).consumer.acquisitionLockTimeoutMs().map(String::valueOf).orElse("-"));
        commands.add("run", words -> {
            MEMBERS.get(words[1]).run();
            return "runs";
        });
        commands.add("read", words -> String.join(" ", MEMBERS.get(words[1]).read));
        commands.add("close", words -> {
            MEMBERS.get(words[1]).close();
            return "closed";
        });
        return commands;
    }

    private static String describe(Admin admin, String group) throws Exception {
        ShareGroupDescription told = admin.describeShareGroups(List.of(group)).describedGroups().get(group).get();
        String members = told.members().stream().map(member -> String.valueOf(member.assignment().topicPartitions().size())).sorted().collect(Collectors.joining(" "));
        return told.groupState() + " " + members;
    }

    private static void administer(Commands commands, Admin admin) {
        commands.add("config", words -> {
            List<AlterConfigOp> changes = new ArrayList<>();
            for (int at = 2; at < words.length; at++) {
                String[] parts = words[at].split("=", 2);
                changes.add(new AlterConfigOp(new ConfigEntry(parts[0], parts[1]), AlterConfigOp.OpType.SET));
            }
            admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.GROUP, words[1]), changes)).all().get();
            return "set";
        });
        commands.add("describe", words -> describe(admin, words[1]));
        commands.add("list", words -> {
            for (GroupListing group : admin.listGroups().all().get()) {
                if (group.groupId().equals(words[1])) {
                    return group.type().get() + " " + group.protocol() + " " + group.groupState().get();
                }
            }
            return "none";
        });
        commands.add("offsets", words -> admin.listShareGroupOffsets(Map.of(words[1], new ListShareGroupOffsetsSpec()))
            .partitionsToOffsetInfo(words[1]).get().entrySet().stream()
            .map(entry -> entry.getKey() + ":" + (entry.getValue() == null ? "none" : entry.getValue().startOffset() + ":" + entry.getValue().lag().map(String::valueOf).orElse("-")))
            .sorted().collect(Collectors.joining(" ")));
        commands.add("alter", words -> {
            admin.alterShareGroupOffsets(words[1], Map.of(new TopicPartition(words[2], Integer.parseInt(words[3])), Long.parseLong(words[4]))).all().get();
            return "altered";
        });
        commands.add("forget", words -> {
            admin.deleteShareGroupOffsets(words[1], Set.of(words[2])).all().get();
            return "forgotten";
        });
        commands.add("delete", words -> {
            admin.deleteShareGroups(List.of(words[1])).all().get();
            return "deleted";
        });
    }

    public static void main(String[] arguments) throws Exception {
        Commands commands = ofMembers(arguments[0]);
        administer(commands, Admin.create(Map.of("bootstrap.servers", arguments[0])));
        commands.serve();
        System.exit(0);
    }
}
